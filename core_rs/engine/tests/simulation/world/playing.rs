//! The proxy's part: it extends before it relays, cuts when told, and settles on every exit.
use comptroller_engine::{Action, Actual, Decision, Error};

use super::{Event, World, reservation};
use crate::auditor::How;
use crate::policy::S;
use crate::request::State;

impl World {
    pub(super) fn take(&mut self, event: Event, turn: u64) {
        match event {
            Event::Arrive(number) => self.arrive(number),
            Event::Edit => self.edit(),
            Event::Book => self.book(),
            Event::Tick => self.tick(),
            Event::Leave(number) => self.leave(number),
            Event::Report(number) => self.report(number),
            Event::Aborted(number) => self.end(number, false),
            Event::GiveUp(number) | Event::Wake(number) | Event::Dry(number) => {
                if self.requests[&number].turn == turn {
                    match event {
                        Event::GiveUp(_) => self.give_up(number),
                        Event::Wake(_) => self.wake(number),
                        _ => self.abort(number),
                    }
                }
            }
        }
    }

    fn arrive(&mut self, number: u64) {
        if let Some(patience_ns) = self.requests[&number].patience_ns {
            self.plan(self.at_ns + patience_ns, 0, Event::Leave(number));
        }
        self.ask(number);
    }

    fn ask(&mut self, number: u64) {
        let request = &self.requests[&number];
        let (key, ask, organization) = (request.key, &request.ask, request.who.organization);
        let before = self.states(organization);
        let decision = self
            .engine
            .admit(key, reservation(number), ask, self.now())
            .unwrap();
        if matches!(decision, Decision::Refused(_)) {
            let is_same = before == self.states(organization);
            self.auditor
                .require(is_same, || format!("{number}: its refusal moved a counter"));
        }
        let again = self.engine.admit(key, reservation(number), ask, self.now());
        let is_taken = matches!(decision, Decision::Admitted(_) | Decision::Waiting(_));
        if is_taken {
            let is_double = matches!(again, Err(Error::DuplicateReservation));
            self.auditor
                .require(is_double, || format!("{number} is taken twice"));
        }
        self.decided(number, decision, How::Asked);
    }

    /// Go by what was decided about a request, after the auditor has looked at it.
    pub(super) fn decided(&mut self, number: u64, decision: Decision, how: How) {
        let who = self.requests[&number].who.clone();
        self.note(&format!(
            "{how:?} {number} {}: {}",
            who.organization,
            brief(&decision)
        ));
        self.auditor.decided(&who, &decision, how);
        match decision {
            Decision::Admitted(admission) => {
                self.seen.admitted += 1;
                self.begin_stream(
                    number,
                    admission.extendable,
                    admission.output_tokens_allowed,
                );
            }
            Decision::Refused(_) => {
                self.seen.refused += 1;
                self.set_state(number, State::Done);
            }
            Decision::Waiting(waiting) => {
                self.seen.waited += 1;
                let turn = self.set_state(number, State::Waiting);
                // The engine's own clock ends a wait too: whichever comes first.
                let late_ns = self.random.below(2 * S);
                let until_ns = self.at_ns + waiting.timeout_ns + late_ns;
                self.plan(until_ns, turn, Event::GiveUp(number));
            }
            Decision::Diverted(diversion) => {
                self.seen.diverted += 1;
                self.set_state(number, State::New);
                let request = self.requests.get_mut(&number).unwrap();
                request
                    .ask
                    .taken
                    .push((diversion.limit_id, diversion.step + 1));
                if let Action::Downgrade { model } = &diversion.action {
                    assert_eq!(&**model, "small");
                    request.who.model = "small";
                    let mut subject = (*request.ask.subject).clone();
                    subject.model = "small".into();
                    request.ask.subject = subject.into();
                }
                self.plan(self.at_ns, 0, Event::Arrive(number));
            }
        }
    }

    /// Enter a state; plans that were made in an earlier one are void.
    fn set_state(&mut self, number: u64, state: State) -> u64 {
        self.planned += 1;
        let request = self.requests.get_mut(&number).unwrap();
        request.state = state;
        request.turn = self.planned;
        request.turn
    }

    fn begin_stream(&mut self, number: u64, is_stream: bool, allowed: i64) {
        self.set_state(number, State::Open);
        let at_ns = self.at_ns;
        let request = self.requests.get_mut(&number).unwrap();
        request.resume(at_ns);
        let allowed = if is_stream { allowed } else { i64::MAX };
        self.granted_quietly(number, allowed);
        let report_ns = self.random.below(5 * S);
        self.plan(at_ns + report_ns, 0, Event::Report(number));
    }

    pub(super) fn granted(&mut self, number: u64, allowed: i64) {
        self.seen.granted += 1;
        let wanted = self.auditor.book.entries[&number].allowed + 1;
        let step = self.requests[&number].who.step;
        // What it wanted is what it was granted less the step; at the bound, at least one more.
        let wanted = wanted.max(allowed - step);
        self.auditor.extended(number, wanted, Some(allowed));
        if self.requests[&number].state != State::Open {
            return;
        }
        let at_ns = self.at_ns;
        self.requests.get_mut(&number).unwrap().resume(at_ns);
        self.granted_quietly(number, allowed);
    }

    fn granted_quietly(&mut self, number: u64, allowed: i64) {
        let turn = self.set_state(number, State::Open);
        let request = self.requests.get_mut(&number).unwrap();
        request.allowed = allowed;
        let at_ns = request.reaches_at_ns(request.total.min(allowed));
        self.plan(at_ns, turn, Event::Wake(number));
    }

    /// Go on with a stream that has come to its end, or to what it may relay.
    fn wake(&mut self, number: u64) {
        let request = &self.requests[&number];
        let count = request.generated(self.at_ns);
        if request.is_refused_upstream {
            self.release(number);
        } else if count >= request.total {
            self.end(number, true);
        } else {
            let step = request.who.step;
            let wanted = count + 1 + self.random.between(0, step);
            self.extend(number, count, wanted);
        }
    }

    fn extend(&mut self, number: u64, count: i64, wanted: i64) {
        let request = &self.requests[&number];
        let organization = request.who.organization as u32;
        let (name, now) = (reservation(number), self.now());
        let allowed = self.engine.extend(organization, name, wanted, now).unwrap();
        self.note(&format!("extend {number} to {wanted}: {allowed:?}"));
        self.auditor.extended(number, wanted, allowed);
        let request = self.requests.get_mut(&number).unwrap();
        match allowed {
            // It has reached its bound.
            Some(allowed) if allowed <= count => self.abort(number),
            Some(allowed) => self.granted_quietly(number, allowed),
            None if request.pauses => request.pause(self.at_ns),
            None => {
                let tail = (request.abort_ns / request.token_ns) as i64 + 1;
                let at_ns = request.reaches_at_ns(request.allowed + request.who.step - tail);
                let turn = request.turn;
                self.plan(at_ns, turn, Event::Dry(number));
            }
        }
    }

    fn report(&mut self, number: u64) {
        let request = &self.requests[&number];
        if request.state != State::Open || request.is_refused_upstream {
            return;
        }
        let (so_far, sums) = request.so_far(request.generated(self.at_ns));
        let (organization, name) = (request.who.organization as u32, reservation(number));
        self.engine
            .progress(organization, name, so_far, self.now())
            .unwrap();
        self.note(&format!("progress {number} {so_far:?}"));
        self.auditor.progressed(number, sums);
        let report_ns = 1 + self.random.below(5 * S);
        self.plan(self.at_ns + report_ns, 0, Event::Report(number));
    }

    /// Close the provider's connection; it notices after a while.
    pub(super) fn abort(&mut self, number: u64) {
        if self.requests[&number].state == State::Open {
            self.set_state(number, State::Aborting);
            let abort_ns = self.requests[&number].abort_ns;
            self.plan(self.at_ns + abort_ns, 0, Event::Aborted(number));
        }
    }

    fn leave(&mut self, number: u64) {
        let request = &self.requests[&number];
        let organization = request.who.organization as u32;
        match request.state {
            State::Waiting => {
                let now = self.now();
                let left = self
                    .engine
                    .leave(organization, reservation(number), now)
                    .unwrap();
                self.note(&format!("leave {number}: {left}"));
                let is_known = self.auditor.leaves_line(number);
                self.auditor
                    .require(left && is_known, || format!("{number} did not wait"));
                self.set_state(number, State::Done);
            }
            State::Open => self.abort(number),
            State::New | State::Aborting | State::Done => {}
        }
    }

    fn give_up(&mut self, number: u64) {
        let organization = self.requests[&number].who.organization as u32;
        let (name, now) = (reservation(number), self.now());
        let decision = self.engine.give_up(organization, name, now).unwrap();
        self.decided(number, decision, How::GivenUp);
    }

    fn release(&mut self, number: u64) {
        let request = &self.requests[&number];
        let (organization, name) = (request.who.organization as u32, reservation(number));
        let released = self.engine.release(organization, name, self.now());
        self.note(&format!("release {number}: {released:?}"));
        self.auditor
            .require(released == Ok(true), || format!("{number}: {released:?}"));
        self.auditor.released(number);
        self.set_state(number, State::Done);
        let settled = self
            .engine
            .settle(organization, name, Actual::default(), self.now());
        let is_right = matches!(settled, Err(Error::AlreadyReleased));
        self.auditor.require(is_right, || {
            format!("I4: {number} is settled after its release")
        });
    }

    fn end(&mut self, number: u64, is_whole: bool) {
        let request = &self.requests[&number];
        let is_unsent = request.is_refused_upstream;
        if is_unsent {
            self.release(number);
            return;
        }
        let count = request.generated(self.at_ns);
        let (actual, sums) = request.actual(count, is_whole);
        let (organization, name) = (request.who.organization, reservation(number));
        let done = self
            .engine
            .settle(organization as u32, name, actual, self.now())
            .unwrap();
        self.note(&format!("settle {number}: {done:?}"));
        self.auditor.settled(number, sums, &done);
        self.seen.crossed += done.crossed.len() as u64;
        self.settled[organization] = done.seq;
        self.set_state(number, State::Done);
        if self.random.chance(10) {
            let again =
                self.engine
                    .settle(organization as u32, name, Actual::default(), self.now());
            let is_same = again.is_ok_and(|again| !again.first && again.booked == done.booked);
            self.auditor
                .require(is_same, || format!("I4: {number} is settled twice"));
        }
    }
}

fn brief(decision: &Decision) -> String {
    match decision {
        Decision::Admitted(admission) => format!(
            "admitted, {:?} held, {:?} bound, {} tokens",
            admission.held, admission.bound, admission.output_tokens_allowed
        ),
        Decision::Refused(refusal) => format!(
            "refused {} {:?} {:?} {:?}",
            refusal.code, refusal.waits_for, refusal.output_tokens_that_fit, refusal.limit
        ),
        Decision::Waiting(waiting) => format!("{waiting:?}"),
        Decision::Diverted(diversion) => format!("{diversion:?}"),
    }
}
