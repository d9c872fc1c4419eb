"""Plays the person behind a connector while the kit tests it: seeds what the kit looks for, sends a request when the kit calls
the webhooks, and takes the steps of plan.py, all through the management API.

    bot.py HOME KIT_PORT PROPERTIES

HOME is the running connector's. PROPERTIES, the kit's configuration, is written when everything is ready.
"""

import json
import secrets
import sys
import threading
import time
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import plan

KIT = "TCK_PARTICIPANT"
CUT = "did:web:cut.invalid"

# The kit listens for one message at a time, and is not there yet when it has just handled another. After a message of the
# kit's, the connector waits this long; after a step of ours, the bot waits until that step has surely been delivered.
FOLLOW_UP_DELAY_MS = 400
PAUSE_AFTER_OWN_STEP = 0.6
# Reconnect to a stream that has been silent for so many seconds.
SILENCE = 60

PATHS = {"org.counterseal.negotiation": "negotiations", "org.counterseal.transfer": "transfers"}


def main(home: Path, kit_port: int, properties: Path) -> None:
    kit = f"http://127.0.0.1:{kit_port}"
    authorization = secrets.token_hex(16)
    connector = Connector(home)
    seed(connector, kit, authorization)

    webhooks = ThreadingHTTPServer(("127.0.0.1", 0), Webhooks)
    webhooks.connector = connector
    threading.Thread(target=webhooks.serve_forever, daemon=True).start()

    values = {
        "kit": kit,
        "kit_port": kit_port,
        "participant": CUT,
        "root": f"http://{connector.plain}",
        "authorization": authorization,
        "bot": f"http://127.0.0.1:{webhooks.server_port}",
    }
    Bot(connector).follow(when_open=lambda: write(properties, values))


def write(properties: Path, values: dict) -> None:
    template = Template(Path(__file__).with_name("tck.properties").read_text())
    unfinished = properties.with_suffix(".part")
    unfinished.write_text(template.substitute(values) + plan.properties())
    unfinished.rename(properties)


class Connector:
    """The management API of the connector under test."""

    def __init__(self, home: Path) -> None:
        running = json.loads((home / "running.json").read_text())
        self.base = f"http://{running['management']}"
        self.plain = running["plain"]
        self.operator = (home / "operator.token").read_text().strip()
        self.steward = (home / "steward.token").read_text().strip()
        self.data = home.with_name(home.name + "-data")

    def post(self, path: str, body: dict, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token or self.operator}", "Content-Type": "application/json"}
        try:
            urlopen(Request(self.base + path, json.dumps(body).encode(), headers), timeout=20).close()
        except HTTPError as refusal:
            raise Refused(f"POST {path}: {refusal.code} {refusal.read(500).decode()}") from None

    def events(self, when_open):
        """Every CloudEvent from now on, across broken connections."""
        last = None
        while True:
            try:
                headers = {"Authorization": f"Bearer {self.operator}"} | ({"Last-Event-ID": last} if last else {})
                with urlopen(Request(f"{self.base}/v1/events", headers=headers), timeout=SILENCE) as stream:
                    when_open()
                    for number, event in server_sent(stream):
                        last = number or last
                        yield event
            except HTTPError:
                raise
            except (OSError, HTTPException) as broken:
                log("events:", broken)
            time.sleep(0.1)


class Refused(Exception):
    """What the connector answered."""


def server_sent(stream):
    """Yields the id and the data of each event in a stream of server-sent events."""
    number, data = None, []
    for line in stream:
        field, _, value = line.decode().rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            number = value
        elif field == "data":
            data.append(value)
        elif not field and not value and data:  # the empty line; a comment has a value
            yield number, json.loads("\n".join(data))
            data = []


class Bot:
    """Takes the steps of the plan as processes come to the states that they wait for."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.plan = {test.id: test.steps for test in plan.tests()}
        self.left = {}

    def follow(self, when_open) -> None:
        for event in self.connector.events(when_open):
            if event["type"] in PATHS:
                self.came_to(PATHS[event["type"]], event["data"])

    def came_to(self, kind: str, process: dict) -> None:
        subject = process.get("dataset" if kind == "negotiations" else "agreement")
        log(process["pid"], subject, process["role"], process["state"])
        left = self.left.setdefault(process["pid"], list(self.plan.get(subject, [])))
        if left and left[0].state == process["state"]:
            step = left.pop(0)
            path = f"/v1/{kind}/{quote(process['pid'], safe=':')}/{step.action}"
            pause = PAUSE_AFTER_OWN_STEP if step.after_own else 0
            threading.Timer(pause, self.take, (path, step.action)).start()

    def take(self, path: str, action: str) -> None:
        log(path)
        try:
            self.connector.post(path, {"reason": "as the plan says"} if action == "terminate" else {})
        except Refused as refusal:
            log(refusal)


class Webhooks(BaseHTTPRequestHandler):
    """Where the kit asks us to send a request."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        common = {"address": asked["connectorAddress"], "approval": "manual"}
        if self.path == "/negotiations":
            wanted = {"provider": asked["providerId"], "dataset": asked["datasetId"], "offer": asked["offerId"]}
            wanted |= {"waitSeconds": 0}
        else:
            wanted = {"agreement": asked["agreementId"], "format": asked["format"]}
        try:
            self.server.connector.post(f"/v1{self.path}", common | wanted)
            status = 204
        except Refused as refusal:
            log(refusal)
            status = 500  # the kit gives up at once; after a 4xx it would ask again
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


def seed(connector: Connector, kit: str, authorization: str) -> None:
    """The kit as a peer, the datasets it asks for, and the agreements it takes for made."""
    folder = connector.data.with_name("seed")
    folder.mkdir()
    connector.data.mkdir(exist_ok=True)
    (connector.data / "tck.csv").write_text("id,value\n1,2\n")
    (folder / "open.cedar").write_text('@id("open") permit (principal, action, resource);\n')

    peer = {"id": KIT, "name": "kit", "address": kit, "followUpDelayMs": FOLLOW_UP_DELAY_MS}
    connector.post("/v1/peers/token", peer | {"inbound": authorization, "outbound": secrets.token_hex(16)})
    for dataset in plan.datasets():
        offer = folder / f"{dataset}.toml"
        offer.write_text(OFFER.format(offer=plan.offer(dataset), dataset=dataset))
        connector.post("/v1/offers", {"file": str(offer)})
    for id, side in plan.agreements().items():
        agreement = folder / f"{id}.toml"
        source = 'source = "tck.csv"\n' if side == "provider" else ""
        agreement.write_text(AGREEMENT.format(id=id, side=side, kit=KIT, source=source))
        connector.post("/v1/agreements/import", {"file": str(agreement)})
        connector.post(f"/v1/agreements/{id}/approve", {}, connector.steward)


def log(*words) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


OFFER = """\
id = "{offer}"
approval = "manual"
[dataset]
id = "{dataset}"
title = "{dataset}"
source = "tck.csv"
[policy]
file = "open.cedar"
[audience]
plain = true
"""

AGREEMENT = """\
id = "{id}"
side = "{side}"
peer = "{kit}"
dataset = "{id}"
approval = "manual"
{source}[policy]
file = "open.cedar"
"""

if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]), Path(sys.argv[3]))
