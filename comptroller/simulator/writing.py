"""Writing an answer: waited for, generated at its pace, billed as it is generated."""

import asyncio

from comptroller.simulator.answers import DONE, encode
from comptroller.simulator.chat import REFUSALS, Job, refuse_by_fault
from comptroller.simulator.faults import Fault
from comptroller.simulator.generation import REASONING
from comptroller.simulator.spoiling import (
    MID_ANSWER,
    break_off,
    drip,
    spoil_stream,
    spoiled_document,
    stall,
    write_split,
    write_usage,
)


async def write_answer(job: Job) -> None:
    """Generate, bill and write the answer of a job, as a stream or as one document."""
    try:
        # The client leaving does not make a provider faster, so these waits go on without it.
        if job.latency_ms:
            await asyncio.sleep(job.latency_ms / 1000)
        if job.has(Fault.STALL_BEFORE_HEAD):
            await stall(job)
        if job.request.stream and not job.has(*REFUSALS):
            await _write_stream(job)
        else:
            await _write_document(job)
    finally:
        job.bill.close()


async def _write_document(job: Job) -> None:
    # Whether a client still waits for a document is noticed when it is written: all is billed.
    await _generate_all(job)
    exchange = job.exchange
    if job.rule is not None and job.has(*REFUSALS):
        await refuse_by_fault(exchange, job.rule)
        return
    body = spoiled_document(job, job.shapes.completion(job.choices, job.usage()))
    headers = job.answer_headers("application/json")
    if job.has(*MID_ANSWER, Fault.SPLIT_UTF8, Fault.SLOW_DRIP):
        await _write_in_parts(job, body, headers)
        return
    await exchange.answer(200, body, headers, gzip=job.has(Fault.GZIP))


async def _generate_all(job: Job) -> None:
    if not (job.pace or job.reasoning_pace):
        job.generate(0, job.rounds)
        return
    started_s = job.exchange.now_s()
    for round_ in range(job.rounds):
        await _until(job, started_s + job.due_s(round_ + 1), round_)
        job.generate(round_, round_ + 1)


async def _write_in_parts(job: Job, body: bytes, headers: dict[str, str]) -> None:
    """Write a document that stops, stalls or swells; chunked, for its size is not known."""
    job.exchange.start(200, headers)
    if job.has(Fault.SPLIT_UTF8, Fault.SLOW_DRIP):
        await (write_split if job.has(Fault.SPLIT_UTF8) else drip)(job, body)
        job.exchange.finish()
        return
    first = _bytes_before_fault(job, body)
    job.exchange.write(body[:first])
    if await break_off(job):
        return
    job.exchange.write(body[first:])
    job.exchange.finish()


def _bytes_before_fault(job: Job, body: bytes) -> int:
    # Padding is white space, which JSON allows in front of a document and not inside a word.
    if job.rule is None or job.has(Fault.HUGE_ANSWER, Fault.LONG_LINE):
        return 0
    return min(job.rule.after_chunks, len(body) - 1)


async def _write_stream(job: Job) -> None:
    exchange = job.exchange
    headers = job.answer_headers("text/event-stream; charset=utf-8")
    headers["cache-control"] = "no-cache"
    exchange.start(200, headers, gzip=job.has(Fault.GZIP))
    for index, choice in enumerate(job.choices):
        exchange.write(job.shapes.opening(index, choice))
    if await _write_rounds(job):
        return
    if not job.has(Fault.UNFINISHED):
        for index, choice in enumerate(job.choices):
            exchange.write(job.shapes.closing(index, choice))
    if not job.has(Fault.EARLY_USAGE):
        write_usage(job)
    if job.has(Fault.DOUBLE_USAGE):
        write_usage(job)
    if not job.has(Fault.MISSING_DONE):
        exchange.write(DONE)
    if job.has(Fault.STALL_AFTER_DONE):
        await stall(job)
    exchange.finish()


async def _write_rounds(job: Job) -> bool:
    """Write all pieces when they are due; True when the stream has come to an early end."""
    fault_round = _fault_round(job)
    around = [job.shapes.around_piece(*each) for each in enumerate(job.choices)]
    started_s = job.exchange.now_s()
    for round_ in range(job.rounds):
        await _until(job, started_s + job.due_s(round_), round_)
        if round_ == fault_round and await spoil_stream(job):
            return True
        if _is_abort_noticed(job, round_):
            job.generate(round_, round_ + job.settings.abort_tail_tokens)
            return True
        job.generate(round_, round_ + 1)
        await _write_round(job, round_, around)
        await job.exchange.drained()
    return fault_round == job.rounds and await spoil_stream(job)


def _fault_round(job: Job) -> int | None:
    if job.rule is None or not job.has(*MID_ANSWER):
        return None
    return min(job.reasoning_rounds + job.rule.after_chunks, job.rounds)


async def _until(job: Job, instant_s: float, round_: int) -> None:
    """Wait for an instant; one that is past is not waited for, so that a pace is caught up."""
    wait_s = instant_s - job.exchange.now_s()
    if wait_s > 0 or not job.pace_of(round_):
        # Also without a pace the loop must run: else nobody notices that the client has left.
        await asyncio.sleep(max(0.0, wait_s))


def _is_abort_noticed(job: Job, round_: int) -> bool:
    left_at_s = job.exchange.left_at_s
    if left_at_s is None:
        return False
    return (
        not job.pace_of(round_) or job.exchange.now_s() >= left_at_s + job.settings.notice_ms / 1000
    )


async def _write_round(job: Job, round_: int, around: list[tuple[bytes, bytes]]) -> None:
    for choice, (before, after) in zip(job.choices, around, strict=True):
        piece = choice.pieces[round_] if round_ < len(choice.pieces) else REASONING
        if piece.is_hidden:
            continue
        frame = before + encode(piece.text) + after
        if job.has(Fault.SPLIT_UTF8):
            await write_split(job, frame)
        elif job.has(Fault.SLOW_DRIP):
            await drip(job, frame)
        else:
            job.exchange.write(frame)
