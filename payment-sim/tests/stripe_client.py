"""Stripe's own Python library against payment-sim: what it reads has to be what it expects.

Called with the binary and an empty directory; see stripe_python.rs. Ends with "all well", or at the first thing that is not.
"""

import http.server
import json
import queue
import subprocess
import sys
import threading
import urllib.request

import stripe

BINARY, DATA_DIR = sys.argv[1:3]
SECRET = "whsec_python"
heard = queue.Queue()


class Merchant(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        heard.put((body, self.headers["Stripe-Signature"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def refused(kind, call):
    """The error of the library's class `kind` that `call` ends in."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"nothing was refused, or not as {kind.__name__}")


def behave(behaviour):
    request = urllib.request.Request(
        stripe.api_base + "/sim/behaviour",
        data=json.dumps(behaviour).encode(),
        headers={"Content-Type": "application/json"},
        method="PUT",
    )
    urllib.request.urlopen(request).read()


def payments():
    intent = stripe.PaymentIntent.create(
        amount=4900, currency="eur", payment_method="pm_card_visa", metadata={"order": "a-1", "lines": "2 & more"},
        description="two shoes", automatic_payment_methods={"enabled": True, "allow_redirects": "never"},
    )
    assert intent.status == "requires_confirmation" and intent.object == "payment_intent", intent
    assert intent.metadata["lines"] == "2 & more" and not intent.livemode, intent
    intent = stripe.PaymentIntent.confirm(intent.id, expand=["latest_charge"])
    assert intent.status == "succeeded" and intent.amount_received == 4900, intent
    assert intent.latest_charge.paid and intent.latest_charge.payment_intent == intent.id, intent
    again = stripe.PaymentIntent.retrieve(intent.id)
    assert again.latest_charge == intent.latest_charge.id and again.client_secret == intent.client_secret, again
    assert stripe.Charge.retrieve(again.latest_charge).amount_captured == 4900

    held = stripe.PaymentIntent.create(
        amount=1000, currency="usd", payment_method="pm_card_visa", capture_method="manual", confirm=True
    )
    assert held.status == "requires_capture" and held.amount_capturable == 1000, held
    held = held.capture(amount_to_capture=600)
    assert held.status == "succeeded" and held.amount_received == 600, held

    freed = stripe.PaymentIntent.create(amount=1000, currency="usd")
    freed = stripe.PaymentIntent.cancel(freed.id, cancellation_reason="requested_by_customer")
    assert freed.status == "canceled" and freed.cancellation_reason == "requested_by_customer", freed
    error = refused(stripe.InvalidRequestError, freed.cancel)
    assert error.code == "payment_intent_unexpected_state" and error.http_status == 400, error
    assert error.error.payment_intent.id == freed.id, error


def buyers():
    intent = stripe.PaymentIntent.create(
        amount=1, currency="eur", payment_method="pm_card_authenticationRequired", confirm=True,
        return_url="https://shop.example/back",
    )
    assert intent.status == "requires_action" and intent.next_action.type == "redirect_to_url", intent
    done = urllib.request.Request(stripe.api_base + intent.next_action.redirect_to_url.url, method="POST")
    urllib.request.urlopen(done).read()
    assert stripe.PaymentIntent.retrieve(intent.id).status == "succeeded"


def refunds():
    intent = stripe.PaymentIntent.create(amount=900, currency="eur", payment_method="pm_card_visa", confirm=True)
    part = stripe.Refund.create(payment_intent=intent.id, amount=400, metadata={"why": "late"})
    assert part.status == "succeeded" and part.amount == 400 and part.metadata["why"] == "late", part
    rest = stripe.Refund.create(charge=intent.latest_charge, reason="requested_by_customer")
    assert rest.amount == 500 and stripe.Refund.retrieve(rest.id) == rest, rest
    assert [r.id for r in stripe.Refund.list(payment_intent=intent.id).data] == [rest.id, part.id]
    error = refused(stripe.InvalidRequestError, lambda: stripe.Refund.create(payment_intent=intent.id))
    assert error.code == "charge_already_refunded", error


def lists():
    made = [stripe.PaymentIntent.create(amount=1, currency="chf", metadata={"list": "l"}).id for _ in range(5)]
    newest = [i.id for i in stripe.PaymentIntent.list(limit=2).auto_paging_iter()][:5]
    assert newest == made[::-1], (newest, made)
    found = stripe.PaymentIntent.search(query="metadata['list']:'l'", limit=2)
    assert [i.id for i in found.auto_paging_iter()] == made[::-1]


def errors():
    def pay(method, **more):
        return stripe.PaymentIntent.create(amount=1, currency="eur", payment_method=method, confirm=True, **more)

    error = refused(stripe.CardError, lambda: pay("pm_card_visa_chargeDeclined"))
    assert (error.code, error.http_status, error.error.decline_code) == ("card_declined", 402, "generic_decline"), error
    assert error.error.payment_intent.status == "requires_payment_method", error
    error = refused(stripe.CardError, lambda: pay("pm_card_chargeDeclinedInsufficientFunds"))
    assert error.error.decline_code == "insufficient_funds" and error.error.charge.startswith("ch_"), error
    error = refused(stripe.CardError, lambda: pay("pm_card_authenticationRequired", off_session=True))
    assert error.code == "authentication_required", error
    error = refused(stripe.InvalidRequestError, lambda: stripe.PaymentIntent.create(currency="eur"))
    assert error.param == "amount" and error.code == "parameter_missing", error
    error = refused(stripe.InvalidRequestError, lambda: stripe.PaymentIntent.retrieve("pi_none"))
    assert error.http_status == 404 and error.code == "resource_missing", error
    refused(stripe.AuthenticationError, lambda: stripe.PaymentIntent.list(api_key="sk_live_no"))
    behave({"everywhere": {"too_many_rate": 1}})
    refused(stripe.RateLimitError, lambda: stripe.PaymentIntent.list())
    behave({"everywhere": {"outage": "close"}})
    refused(stripe.APIConnectionError, lambda: stripe.PaymentIntent.list())
    behave({"everywhere": {"outage": "refuse"}})
    refused(stripe.APIError, lambda: stripe.PaymentIntent.list())
    behave({})


def keys():
    form = dict(amount=700, currency="eur", payment_method="pm_card_visa", confirm=True)
    first = stripe.PaymentIntent.create(**form, idempotency_key="python-1")
    again = stripe.PaymentIntent.create(**form, idempotency_key="python-1")
    assert first.id == again.id and again.last_response.headers["Idempotent-Replayed"] == "true"
    assert again.last_response.idempotency_key == "python-1" and again.last_response.request_id.startswith("req_")
    other = dict(form, amount=701)
    refused(stripe.IdempotencyError, lambda: stripe.PaymentIntent.create(**other, idempotency_key="python-1"))
    behave({"operations": {"create": {"charge_then_error_rate": 1}}})
    refused(stripe.APIError, lambda: stripe.PaymentIntent.create(**form, idempotency_key="python-2"))
    behave({"operations": {"create": {"charge_then_hang_rate": 1, "hang": "close"}}})
    # The library tries again by itself, under the same key, and finds what was done.
    stripe.max_network_retries = 2
    found = stripe.PaymentIntent.create(**form, metadata={"order": "hung"}, idempotency_key="python-3")
    stripe.max_network_retries = 0
    assert found.last_response.headers["Idempotent-Replayed"] == "true" and found.status == "succeeded", found
    behave({})
    assert len(stripe.PaymentIntent.search(query="metadata['order']:'hung'").data) == 1


def webhooks():
    while not heard.empty():
        heard.get()
    intent = stripe.PaymentIntent.create(amount=55, currency="eur", payment_method="pm_card_visa", confirm=True)
    while True:
        body, signature = heard.get(timeout=20)
        event = stripe.Webhook.construct_event(body, signature, SECRET)
        if event.data.object.id == intent.id:
            break
    assert event.type == "payment_intent.succeeded" and event.data.object.amount_received == 55, event
    assert stripe.Event.retrieve(event.id).data.object.id == intent.id
    assert event.id in [e.id for e in stripe.Event.list(type="payment_intent.succeeded").data]
    refused(stripe.SignatureVerificationError, lambda: stripe.Webhook.construct_event(body + b" ", signature, SECRET))


def main():
    merchant = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Merchant)
    threading.Thread(target=merchant.serve_forever, daemon=True).start()
    hook = f"http://127.0.0.1:{merchant.server_port}/hook"
    flags = ["--listen", "127.0.0.1:0", "--data-dir", DATA_DIR, "--webhook-url", hook, "--webhook-secret", SECRET]
    process = subprocess.Popen([BINARY, *flags], stdout=subprocess.PIPE, text=True)
    try:
        stripe.api_base = process.stdout.readline().split()[-1]
        stripe.api_key = "sk_test_python"
        stripe.max_network_retries = 0
        for part in [payments, buyers, refunds, lists, errors, keys, webhooks]:
            part()
            print(part.__name__, "well")
    finally:
        process.terminate()
        process.wait()
    print("all well")


main()
