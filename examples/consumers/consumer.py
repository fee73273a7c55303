#!/usr/bin/env python3
"""Handles the events of nodestorage: from Redis Streams, or from NATS with JetStream.

    consumer.py redis://localhost:6379
    consumer.py nats://localhost:4222 --prefix events --group audit

Needs the packages `redis` and `nats-py`. Run one process per group: it handles the events of a document in
order, and two of them would overtake each other. One that was killed goes on where it was when it is started
again; what it had handled and not acknowledged comes again.
"""

import argparse
import asyncio
import json

import nats
import nats.errors
import redis
from nats.js.api import AckPolicy, ConsumerConfig


class LastSeen:
    """Drops repetitions: what is not above the last version that was seen of a document.

    This one forgets everything when the process ends. Who must not handle an event twice keeps the last
    version beside what the handling changes, and changes both in one transaction.
    """

    def __init__(self):
        self.last = {}

    def is_new(self, event):
        document = (event["collection"], event["subjecttype"], event["subject"])
        # Large numbers are text.
        at = (int(event["aggregateversion"]), int(event["eventindex"]))
        if at <= self.last.get(document, (0, 0)):
            return False
        self.last[document] = at
        return True


def handle(event):
    """What is to be done; here it is printed."""
    version, index = event["aggregateversion"], event["eventindex"]
    document = f"{event['collection']}/{event['subject']}"
    print(event["type"], event["id"], version, index, document, flush=True)


class Consumer:
    """Handles one event after the other, until it has handled so many."""

    def __init__(self, count):
        self.seen = LastSeen()
        self.left = count

    def take(self, payload):
        event = json.loads(payload)
        if self.seen.is_new(event):
            handle(event)
            if self.left is not None:
                self.left -= 1

    def is_done(self):
        return self.left == 0


def from_redis(consumer, url, prefix, group):
    # With version 2 of the protocol all releases of the client answer in one form.
    client = redis.Redis.from_url(url, protocol=2)
    base = "{" + prefix + "}"
    partitions = int(client.hget(base, "partitions"))
    streams = [f"{base}:events:{partition}" for partition in range(partitions)]
    for stream in streams:
        try:
            client.xgroup_create(stream, group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
    # First what this consumer was given before and has not acknowledged, then what is new.
    places = {stream: "0" for stream in streams}
    while not consumer.is_done():
        answer = client.xreadgroup(group, "consumer", places, count=100, block=1000)
        for stream, entries in answer:
            stream = stream.decode()
            for entry, fields in entries:
                # What was trimmed away meanwhile has no fields.
                if fields:
                    consumer.take(fields[b"event"])
                client.xack(stream, group, entry)
                if consumer.is_done():
                    return
            if places[stream] != ">":
                places[stream] = entries[-1][0] if entries else ">"


async def from_nats(consumer, url, prefix, group):
    client = await nats.connect(url)
    config = ConsumerConfig(
        ack_policy=AckPolicy.EXPLICIT,
        # One at a time. With more, what was unacknowledged when this process was killed would come after
        # later events of its document, and be dropped as old.
        max_ack_pending=1,
        ack_wait=5,
    )
    subscription = await client.jetstream().pull_subscribe(
        f"{prefix}.>",
        durable=group,
        stream=prefix.upper().replace(".", "_"),
        config=config,
    )
    while not consumer.is_done():
        try:
            messages = await subscription.fetch(1, timeout=5)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            # Dead letters on their way back to a group of the library are none of ours.
            if not message.subject.startswith(f"{prefix}.%-."):
                consumer.take(message.data)
            await message.ack_sync()
    await client.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="redis://HOST:PORT or nats://HOST:PORT")
    parser.add_argument("--prefix", help="of the bus; default nodestorage, with NATS events")
    parser.add_argument("--group", default="python", help="whose place the broker keeps; default python")
    parser.add_argument("--count", type=int, help="end after handling so many events")
    arguments = parser.parse_args()
    consumer = Consumer(arguments.count)
    if arguments.url.startswith("nats:"):
        prefix = arguments.prefix or "events"
        asyncio.run(from_nats(consumer, arguments.url, prefix, arguments.group))
    else:
        from_redis(consumer, arguments.url, arguments.prefix or "nodestorage", arguments.group)


if __name__ == "__main__":
    main()
