"""A program that shares no code with driftlog: Confluent's client, fastavro, httpx and ClickHouse's client.

stranger.py BOOTSTRAP REGISTRY CLICKHOUSE_PORT REST WHAT [ARGUMENT]
  exchange COUNT   produces COUNT events (predictions and labels) and waits for each in ClickHouse, once
  produce SECONDS  produces labels steadily; prints what was acknowledged and the longest gap in between
  ask SECONDS      asks for predictions steadily over REST; prints the answered ids and the failures
  garbage          puts bytes that are no events on the labels topic
  logged           counts ids given on stdin (JSON list) in the predictions topic, read from the start
  count            counts ids given on stdin (JSON list) in ClickHouse's FINAL predictions and labels
"""

import io
import json
import struct
import sys
import time
import uuid
from collections import Counter

import clickhouse_connect
import confluent_kafka
import fastavro
import httpx

BOOTSTRAP, REGISTRY, CLICKHOUSE, REST = sys.argv[1:5]
INSTANCE = {
    "departure_hour": 9.5,
    "weekday": "mon",
    "carrier": "UA",
    "origin": "EWR",
    "dest": "IAH",
    "scheduled_minutes": 227.0,
    "distance": 1400.0,
}


def say(**fields):
    print(json.dumps(fields), flush=True)


class Topic:
    """Encodes records for one topic with the schema that the registry holds."""

    def __init__(self, name):
        self.name = name
        found = httpx.get(f"{REGISTRY}/subjects/{name}-value/versions/latest").json()
        self.id, self.json = found["id"], json.loads(found["schema"])
        self.schema = fastavro.parse_schema(self.json)

    def encode(self, record):
        out = io.BytesIO()
        out.write(struct.pack(">bI", 0, self.id))
        fastavro.schemaless_writer(out, self.schema, record)
        return out.getvalue()


def producer(**more):
    settings = {"bootstrap.servers": BOOTSTRAP, "acks": "all", "enable.idempotence": True, **more}
    return confluent_kafka.Producer(settings)


def label(prediction_id):
    now = int(time.time() * 1000)
    return {
        "event_id": str(uuid.uuid4()),
        "event_time": now,
        "caused_by": None,
        "prediction_id": prediction_id,
        "label": 1,
    }


def prediction(features):
    now = int(time.time() * 1000)
    return {
        "event_id": str(uuid.uuid4()),
        "event_time": now,
        "caused_by": None,
        "model_version": "stranger-1",
        "score": 0.25,
        "label": 0,
        "features": {**dict.fromkeys(features), **INSTANCE},
    }


def in_clickhouse(table, ids):
    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=int(CLICKHOUSE), database="driftlog"
    )
    rows = client.query(f"SELECT event_id FROM {table} FINAL").result_columns
    found = Counter(rows[0] if rows else [])
    return {"missing": sum(not found[i] for i in ids), "double": sum(found[i] > 1 for i in ids)}


def exchange(count):
    labels, predictions = Topic("flights.labels"), Topic("flights.predictions")
    features = [
        f["name"]
        for f in next(
            f["type"]["fields"] for f in predictions.json["fields"] if f["name"] == "features"
        )
    ]
    kafka = producer(**{"linger.ms": 5})
    acknowledged, asked = [], []

    def delivered(error, message):
        if error is None:
            acknowledged.append(message.key().decode())

    for _ in range(count // 2):
        made = prediction(features)
        told = label(made["event_id"])
        asked.append((made["event_id"], told["event_id"]))
        for topic, record, key in (
            (predictions, made, "event_id"),
            (labels, told, "prediction_id"),
        ):
            kafka.produce(topic.name, topic.encode(record), record[key], on_delivery=delivered)
            kafka.poll(0)
    kafka.flush(60)
    began = time.monotonic()
    while True:
        here = {
            "flights_predictions": in_clickhouse("flights_predictions", [p for p, _ in asked]),
            "flights_labels": in_clickhouse("flights_labels", [told for _, told in asked]),
        }
        seconds = time.monotonic() - began
        missing = sum(found["missing"] for found in here.values())
        if not missing or seconds > 90:
            break
        time.sleep(0.2)
    say(acknowledged=len(acknowledged), seconds=seconds, found=here, example=asked[0])


def steady_produce(seconds):
    labels = Topic("flights.labels")
    say(started=True)
    kafka = producer(
        **{
            "linger.ms": 0,
            "delivery.timeout.ms": 60000,
            "request.timeout.ms": 3000,
            "topic.metadata.refresh.interval.ms": 2000,
        }
    )
    ids, gaps, last = [], [], [time.monotonic()]

    def delivered(event_id):
        def note(error, message):
            if error is None:
                now = time.monotonic()
                gaps.append(now - last[0])
                last[0] = now
                ids.append(event_id)

        return note

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        told = label(str(uuid.uuid4()))
        told["event_time"] = 0
        kafka.produce(
            "flights.labels",
            labels.encode(told),
            told["prediction_id"],
            on_delivery=delivered(told["event_id"]),
        )
        kafka.poll(0.005)
    left = kafka.flush(60)
    say(acknowledged=ids, unsure=left, longest_gap=max(gaps, default=0))


def steady_ask(seconds):
    answered, failures, slowest, asked = [], Counter(), 0.0, 0
    say(started=True)
    end = time.monotonic() + seconds
    with httpx.Client(base_url=REST, timeout=30) as http:
        while time.monotonic() < end:
            began = time.monotonic()
            asked += 1
            try:
                body = {"instances": [{**INSTANCE, "event_time": "2013-01-14T12:00:00Z"}] * 3}
                answer = http.post("/v1/tasks/flights/predict", json=body)
                if answer.status_code == 200:
                    answered += [p["event_id"] for p in answer.json()["predictions"]]
                else:
                    failures[f"HTTP {answer.status_code}"] += 1
            except httpx.HTTPError as error:
                failures[type(error).__name__] += 1
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.02)
    say(asked=asked, answered=answered, failures=failures, slowest=slowest)


def garbage():
    good = Topic("flights.labels").encode(label("x"))
    known_id = good[1:5]
    bad = {
        "random": b"\x93" * 40,
        "empty": b"",
        "unknown schema id": b"\x00" + struct.pack(">I", 999_999) + good[5:],
        "truncated": good[:-3],
        "trailing": good + b"\x00\x00",
        "bomb": b"\x00" + known_id + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" * 4,
    }
    kafka = producer()
    for name, value in bad.items():
        kafka.produce("flights.labels", value, name)
    kafka.produce("flights.labels", None, "no value at all")
    left = kafka.flush(30)
    say(sent=[*bad, "no value at all"], left=left)


def logged_ids():
    """In the log itself: which ids are missing, and which stand there more than once (sent again)."""
    ids = json.load(sys.stdin)
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": BOOTSTRAP, "group.id": "stranger", "enable.auto.commit": False}
    )
    topic = Topic("flights.predictions")
    known = {topic.id: topic.schema}
    found, contents = Counter(), {}
    for number in consumer.list_topics(topic.name).topics[topic.name].partitions:
        at = confluent_kafka.TopicPartition(topic.name, number, 0)
        end = consumer.get_watermark_offsets(at)[1]
        consumer.assign([at])
        while consumer.position([at])[0].offset < end:
            for message in consumer.consume(1000, 1.0):
                (schema_id,) = struct.unpack(">I", message.value()[1:5])
                if schema_id not in known:
                    told = httpx.get(f"{REGISTRY}/schemas/ids/{schema_id}").json()["schema"]
                    known[schema_id] = fastavro.parse_schema(json.loads(told))
                body = io.BytesIO(message.value()[5:])
                record = fastavro.schemaless_reader(body, known[schema_id], topic.schema)
                found[record["event_id"]] += 1
                contents.setdefault(record["event_id"], set()).add(record["score"])
    consumer.close()
    say(
        missing=sum(not found[i] for i in ids),
        repeated=sum(found[i] > 1 for i in ids),
        two_answers=sum(len(contents.get(i, ())) > 1 for i in ids),
    )


def count_ids():
    ids = json.load(sys.stdin)
    say(**{table: in_clickhouse(table, found) for table, found in ids.items()})


def main():
    what, *more = sys.argv[5:]
    acts = {
        "exchange": lambda: exchange(int(more[0])),
        "produce": lambda: steady_produce(float(more[0])),
        "ask": lambda: steady_ask(float(more[0])),
        "garbage": garbage,
        "logged": logged_ids,
        "count": count_ids,
    }
    acts[what]()


if __name__ == "__main__":
    main()
