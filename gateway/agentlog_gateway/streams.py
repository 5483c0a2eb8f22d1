"""Decides what a client of a run's stream is sent, from where, and when the stream ends.

For the routes (`runs.py`) this is all:

    streams = RunStreams(frames, rows, hints)          # composition root; `streams.run()` under its task group

    # POST .../runs/stream: enter before the run exists, so that nothing of it can be missed
    live = await streams.open(thread_id)
    try:
        ... create the run; on refusal or duplicate `live.close()` ...
    except BaseException:
        live.close()
        raise
    events = live.events(run_id, resumable=resumable)   # RunEvents

    # a repeated Idempotency-Key on POST .../runs/stream: the first run from its start
    events = streams.replay(thread_id, run_id)

    # GET .../runs/{run_id}/stream: `last_event_id` = header or None, `modes` = join.stream_modes(values) or None
    events = streams.join(thread_id, run_id, last_event_id=last_event_id, modes=modes)

    # each way; `on_gone` is awaited once when the client goes away before the run's end (cancel_on_disconnect)
    return SseResponse(events, headers={"Location": ..., "Content-Location": ...}, on_gone=cancel or None)

`RunEvents` is an async iterator of bytes (whole SSE events, heartbeat comments every 5 s of connection time); its
`ended` tells whether the run's end was delivered; `close()` gives everything back and may be called at any time.
It never raises for an unknown run: the contract has an `error` event for that (sections 10 and 11).

    # wait and join (blocking calls) share the same watch: the row once the run has ended, None when `patience` passed
    row = await streams.ends.wait(run_id, patience=timedelta(seconds=5))
"""
