"""A touch on a security key: WebAuthn ceremonies over the keys that are plugged in.

The origin that goes into the client data is the pinned broker's, never one that an answer names; the RP ID
that an answer names must fit it (WebAuthn 5.1.4.1 step 8, done by ``DefaultClientDataCollector``).

All keys blink at once and the first success ends the others. The keys are worked by daemon threads; whatever
needs the person (notes, the PIN) is done by the calling thread, so that Ctrl-C finds the terminal in order.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fido2.client import DefaultClientDataCollector, Fido2Client, UserInteraction
from fido2.webauthn import PublicKeyCredentialCreationOptions, PublicKeyCredentialRequestOptions

from credx.errors import FactorError
from credx.factors.key_errors import explain, no_key, no_touch, plug_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from fido2.ctap import CtapDevice

    from credx.factors import Devices
    from credx.ui import UI

    Ceremony: TypeAlias = Callable[[Fido2Client, threading.Event], dict[str, Any]]

CEREMONY_SECONDS: Final = 50.0  # the Go SDK, so Terraform, kills credential_process at 60 s
CHALLENGE_BYTES: Final = 16  # at least, WebAuthn 13.4.3
PARTING_SECONDS: Final = 1.0  # for the other keys to stop blinking


def get_assertion(
    public_key: dict[str, Any],
    *,
    origin: str,
    devices: Devices,
    ui: UI,
    approve: str,
    seconds: float = CEREMONY_SECONDS,
) -> dict[str, Any]:
    """Sign the broker's challenge on one of the keys it lists.

    Args:
        public_key: PublicKeyCredentialRequestOptionsJSON.
        origin: of the broker, from the settings.
        devices: the keys that are plugged in.
        ui: the person.
        approve: what the touch approves, such as ``prod-ops on i-0abc for 1 h``.
        seconds: for the whole ceremony.

    Returns:
        AuthenticationResponseJSON (WebAuthn Level 3, 5.1).

    Raises:
        FactorError: no key, another key, no touch in time, no PIN, or options that make no sense.
    """
    options = _options(PublicKeyCredentialRequestOptions, public_key)

    def ceremony(client: Fido2Client, stop: threading.Event) -> dict[str, Any]:
        return dict(client.get_assertion(options, stop).get_response(0))

    return _Run(ui, f"touch your security key to approve: {approve}").first(
        ceremony, devices, origin, seconds
    )


def make_credential(
    public_key: dict[str, Any],
    *,
    origin: str,
    devices: Devices,
    ui: UI,
    seconds: float = CEREMONY_SECONDS,
) -> dict[str, Any]:
    """Register a key: PublicKeyCredentialCreationOptionsJSON in, RegistrationResponseJSON out.

    Raises:
        FactorError: as ``get_assertion``.
    """
    options = _options(PublicKeyCredentialCreationOptions, public_key)

    def ceremony(client: Fido2Client, stop: threading.Event) -> dict[str, Any]:
        return dict(client.make_credential(options, stop))

    return _Run(ui, "touch the security key that you want to add").first(ceremony, devices, origin, seconds)


def hid_devices() -> list[CtapDevice]:
    """The USB security keys that this user may open."""
    try:
        from fido2.hid import CtapHidDevice  # noqa: PLC0415 -- fails to import where there is no HID

        return list(CtapHidDevice.list_devices())
    except (ImportError, OSError) as exc:
        raise FactorError("security keys cannot be listed on this machine", hint=plug_in()) from exc


@dataclass(frozen=True)
class _Pin:
    """A key wants its PIN; ``answer`` takes it, or None."""

    answer: queue.Queue[str | None]


@dataclass(frozen=True)
class _Done:
    response: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class _Failed:
    cause: Exception


_Message: TypeAlias = "_Pin | _Done | _Failed"


class _Worker(UserInteraction):
    """One key in one thread: reports to the inbox, asks through it."""

    def __init__(self, inbox: queue.Queue[_Message]) -> None:
        self._inbox = inbox

    def request_pin(self, *_: object) -> str | None:
        answer: queue.Queue[str | None] = queue.Queue()
        self._inbox.put(_Pin(answer))
        return answer.get()

    def run(self, device: CtapDevice, ceremony: Ceremony, origin: str, stop: threading.Event) -> None:
        try:
            client = Fido2Client(device, DefaultClientDataCollector(origin), self)
            self._inbox.put(_Done(ceremony(client, stop)))
        except Exception as exc:  # noqa: BLE001 -- a thread has nobody to raise to; a lost message would hang
            self._inbox.put(_Failed(exc))


class _Run:
    def __init__(self, ui: UI, note: str) -> None:
        self._ui = ui
        self._note = note
        self._inbox: queue.Queue[_Message] = queue.Queue()
        self._stop = threading.Event()

    def first(
        self,
        ceremony: Ceremony,
        devices: Devices,
        origin: str,
        seconds: float,
    ) -> dict[str, Any]:
        keys = list(devices())
        if not keys:
            raise no_key()
        threads = [
            threading.Thread(
                target=_Worker(self._inbox).run, args=(key, ceremony, origin, self._stop), daemon=True
            )
            for key in keys
        ]
        self._ui.note(self._note)  # before any PIN is typed: what is approved comes first
        try:
            for thread in threads:
                thread.start()
            return self._wait(len(keys), seconds)
        finally:  # also on Ctrl-C: the keys must stop blinking
            self._stop.set()
            end = time.monotonic() + PARTING_SECONDS
            for thread in threads:
                with contextlib.suppress(RuntimeError):  # Ctrl-C came before it had started
                    thread.join(max(0.0, end - time.monotonic()))
            for key in keys:
                key.close()

    def _wait(self, running: int, seconds: float) -> dict[str, Any]:
        failures: list[Exception] = []
        end = time.monotonic() + seconds
        while len(failures) < running:
            try:
                message = self._inbox.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise no_touch(seconds) from None
            match message:
                case _Pin(answer):
                    answer.put(self._pin())
                case _Done(response):
                    return response
                case _Failed(cause):
                    failures.append(cause)
        raise explain(failures, seconds)

    def _pin(self) -> str | None:
        return self._ui.prompt_secret("PIN of the security key").reveal() if self._ui.interactive else None


def _options(kind: Any, public_key: dict[str, Any]) -> Any:
    # no extension: credx needs none, and some give a site more than a signature (prf, largeBlob); no timeout:
    # the ceremony has its own
    plain = {name: value for name, value in public_key.items() if name not in {"extensions", "timeout"}}
    try:
        options = kind.from_dict(plain)
        readable = isinstance(options.challenge, bytes) and len(options.challenge) >= CHALLENGE_BYTES
    except (ValueError, TypeError, KeyError, AttributeError):
        readable = False
    if not readable:
        raise FactorError(
            "the broker's challenge cannot be read", hint="credx --version: the broker may be of another one"
        )
    return options
