"""A peer on the Python rns: orders come as JSON lines on stdin, events go as JSON lines to stdout.

Usage: peer.py CONFIG_DIRECTORY. Bytes are hex everywhere. What rns itself says goes to stderr.
"""

import json
import os
import sys
import threading

# rns logs to stdout: events go to a copy of it, and stdout becomes stderr.
EVENTS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import RNS  # noqa: E402

LOCK = threading.Lock()
LINKS = {}


def tell(event, **fields):
    with LOCK:
        EVENTS.write(json.dumps({"event": event, **fields}) + "\n")
        EVENTS.flush()


def watch(link):
    """Tells all that happens on a link from now on."""
    name = link.link_id.hex()
    LINKS[name] = link
    link.set_resource_strategy(RNS.Link.ACCEPT_ALL)
    link.set_packet_callback(lambda data, packet: tell("packet", link=name, bytes=data.hex()))
    link.set_resource_concluded_callback(lambda resource: concluded(name, resource))
    link.set_link_closed_callback(lambda link: tell("down", link=name, reason=link.teardown_reason))
    link.set_remote_identified_callback(
        lambda link, identity: tell("identified", link=name, identity=identity.hash.hex())
    )


def concluded(name, resource):
    if resource.status == RNS.Resource.COMPLETE:
        tell("resource", link=name, bytes=resource.data.read().hex())
    else:
        tell("no resource", link=name, status=resource.status)


def up(link, role):
    watch(link)
    tell("up", link=link.link_id.hex(), role=role, mtu=link.mtu, rtt=link.rtt)


class Announces:
    aspect_filter = None

    def received_announce(self, destination_hash, announced_identity, app_data):
        tell(
            "announce",
            destination=destination_hash.hex(),
            identity=announced_identity.hash.hex(),
            app_data=(app_data or b"").hex(),
            hops=RNS.Transport.hops_to(destination_hash),
        )


class Peer:
    def __init__(self, config):
        RNS.Reticulum(config)
        RNS.Transport.register_announce_handler(Announces())
        self.identity = RNS.Identity()
        self.services = {}
        tell("ready", identity=self.identity.hash.hex())

    def serve(self, name, prove):
        app, aspect = name.split(".")
        service = RNS.Destination(
            self.identity, RNS.Destination.IN, RNS.Destination.SINGLE, app, aspect
        )
        if prove:
            service.set_proof_strategy(RNS.Destination.PROVE_ALL)
        service.set_link_established_callback(lambda link: up(link, "listener"))
        self.services[name] = service
        tell("serving", name=name, destination=service.hash.hex())

    def announce(self, name, app_data):
        self.services[name].announce(app_data=bytes.fromhex(app_data))

    def catch_up(self):
        tell("caught up")

    def strangers(self, name, count, app_data):
        """Announces peers that nobody is."""
        app, aspect = name.split(".")
        for _ in range(count):
            stranger = RNS.Destination(
                RNS.Identity(), RNS.Destination.IN, RNS.Destination.SINGLE, app, aspect
            )
            stranger.announce(app_data=bytes.fromhex(app_data))

    def open(self, name, destination):
        identity = RNS.Identity.recall(bytes.fromhex(destination))
        if identity is None:
            tell("unknown", destination=destination)
            return
        app, aspect = name.split(".")
        service = RNS.Destination(
            identity, RNS.Destination.OUT, RNS.Destination.SINGLE, app, aspect
        )
        RNS.Link(
            service,
            established_callback=lambda link: up(link, "dialer"),
            closed_callback=lambda link: tell("no link", destination=destination),
        )

    def identify(self, link):
        LINKS[link].identify(self.identity)

    def packet(self, link, token, bytes):
        receipt = RNS.Packet(LINKS[link], BYTES(bytes)).send()
        if not receipt:
            tell("not sent", token=token)
            return
        receipt.set_delivery_callback(lambda receipt: tell("proved", token=token))
        receipt.set_timeout_callback(lambda receipt: tell("unproved", token=token))

    def resource(self, link, token, bytes):
        RNS.Resource(
            BYTES(bytes),
            LINKS[link],
            callback=lambda resource: tell(
                "sent", token=token, ok=resource.status == RNS.Resource.COMPLETE
            ),
        )

    def close(self, link):
        LINKS[link].teardown()


BYTES = bytes.fromhex


def main():
    peer = Peer(sys.argv[1])
    for line in sys.stdin:
        order = json.loads(line)
        getattr(peer, order.pop("do"))(**order)
    # Its threads are of no interest any more.
    os._exit(0)


main()
