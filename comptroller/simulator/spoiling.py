"""The faults that strike in the middle of an answer."""

import asyncio

from comptroller.simulator.answers import error_body, sse
from comptroller.simulator.chat import Job
from comptroller.simulator.faults import Fault

BLOCK_BYTES = 16 << 10
# What a multi-byte character of UTF-8 begins with, at least.
WIDE_BYTE_MIN = 0xC0
# Long enough for the two halves to leave as two segments, short enough not to be noticed.
SPLIT_PAUSE_S = 0.001

MID_ANSWER = frozenset(
    {
        Fault.RESET_MID_ANSWER,
        Fault.CLOSE_MID_ANSWER,
        Fault.STALL_MID_ANSWER,
        Fault.END_MID_ANSWER,
        Fault.EARLY_USAGE,
        Fault.ERROR_MID_STREAM,
        Fault.BAD_JSON,
        Fault.INVALID_UTF8,
        Fault.LONG_LINE,
        Fault.HUGE_ANSWER,
    }
)


async def spoil_stream(job: Job) -> bool:
    """Do the fault of a stream; True when that ends it."""
    exchange = job.exchange
    if job.has(Fault.ERROR_MID_STREAM):
        message = "The simulator was asked for an error in the middle of the stream."
        exchange.write(sse(error_body(500, message, "server_error")))
        exchange.finish()
        return True
    if job.has(Fault.EARLY_USAGE):
        write_usage(job)
    elif job.has(Fault.BAD_JSON):
        exchange.write(sse(b'{"id":"chatcmpl-broken","choices":[{'))
    elif job.has(Fault.INVALID_UTF8):
        exchange.write(sse(b'{"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}'))
    elif job.has(Fault.LONG_LINE, Fault.HUGE_ANSWER):
        await _swell(job)
    else:
        return await break_off(job)
    return False


async def break_off(job: Job) -> bool:
    """Do a fault that documents and streams share; True when that ends the answer."""
    if job.has(Fault.RESET_MID_ANSWER):
        await job.exchange.reset()
        return True
    if job.has(Fault.CLOSE_MID_ANSWER):
        job.exchange.close()
        return True
    if job.has(Fault.END_MID_ANSWER):
        job.exchange.finish()
        return True
    if job.has(Fault.STALL_MID_ANSWER):
        await stall(job)
    elif job.has(Fault.LONG_LINE, Fault.HUGE_ANSWER):
        await _pad(job, b" ")
    return False


async def stall(job: Job) -> None:
    """Say nothing for the fault's time; 0 is until the client leaves."""
    delay_ms = job.rule.delay_ms if job.rule is not None else 0
    await job.exchange.pause(delay_ms / 1000 if delay_ms else None)


def spoiled_document(job: Job, body: bytes) -> bytes:
    """Break the text of a document where its fault is of that kind."""
    if job.has(Fault.BAD_JSON, Fault.ERROR_MID_STREAM):
        return body[: len(body) // 2]
    if job.has(Fault.INVALID_UTF8):
        return body.replace(b'"content":"', b'"content":"\xff\xfe', 1)
    return body


async def write_split(job: Job, data: bytes) -> None:
    """Write in two parts, cut inside the first character that has several bytes."""
    wide = (at for at, byte in enumerate(data) if byte >= WIDE_BYTE_MIN)
    cut = next(wide, 0) + 1
    job.exchange.write(data[:cut])
    await job.exchange.pause(SPLIT_PAUSE_S)
    job.exchange.write(data[cut:])


def write_usage(job: Job) -> None:
    """Write the usage frame with what was generated so far, if the caller asked for one."""
    shown = job.usage() if job.request.include_usage else None
    if shown is not None:
        job.exchange.write(job.shapes.usage_frame(shown))


async def drip(job: Job, data: bytes) -> None:
    """Write one byte at a time."""
    pause_s = (job.rule.delay_ms if job.rule is not None else 0) / 1000
    for at in range(len(data)):
        job.exchange.write(data[at : at + 1])
        await job.exchange.pause(pause_s)


async def _swell(job: Job) -> None:
    """Write frames of text nobody generated: one for a long line, many for a huge answer."""
    before, after = job.shapes.around_piece(0, job.choices[0])
    before, after = before + b'"', b'"' + after
    if job.has(Fault.LONG_LINE):
        job.exchange.write(before)
        await _pad(job, b"x")
        job.exchange.write(after)
    else:
        await _pad(job, b"x", before, after)


async def _pad(job: Job, filler: bytes, before: bytes = b"", after: bytes = b"") -> None:
    """Write the fault's number of bytes in blocks, never more in memory than the client reads."""
    left = job.rule.bytes if job.rule is not None else 0
    while left > 0 and not job.exchange.is_left:
        size = min(left, BLOCK_BYTES)
        job.exchange.write(before + filler * size + after)
        await job.exchange.drained()
        # Only when the loop runs it is seen that the client has left.
        await asyncio.sleep(0)
        left -= size
