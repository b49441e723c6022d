//! Counts what runs have seen, so that nothing is checked in vain.

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) waited: u64,
    pub(crate) cut: u64,
    pub(crate) granted: u64,
    pub(crate) diverted: u64,
    pub(crate) crossed: u64,
    pub(crate) breakers: u64,
    pub(crate) edits: u64,
    pub(crate) events: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, run: Self) {
        self.admitted += run.admitted;
        self.refused += run.refused;
        self.waited += run.waited;
        self.cut += run.cut;
        self.granted += run.granted;
        self.diverted += run.diverted;
        self.crossed += run.crossed;
        self.breakers += run.breakers;
        self.edits += run.edits;
        self.events += run.events;
    }

    /// Tell whether everything that can happen has happened often.
    pub(crate) fn is_telling(self) -> bool {
        let counts = [
            self.admitted,
            self.refused,
            self.waited,
            self.cut,
            self.granted,
            self.diverted,
            self.crossed,
            self.breakers,
            self.edits,
        ];
        counts.iter().all(|count| *count >= 20)
    }
}
