"""A session and a request that belong together, as most tests hand them on: `f(*case, ...)`."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple

from kvw_minimal.coefficients import Coefficients
from kvw_minimal.forget_request import Request
from kvw_minimal.session import Session

OF_SESSION = {field.name for field in fields(Session)}


class Case(NamedTuple):
    """Attributes of both can be read as its own; `but` changes some."""

    session: Session
    request: Request

    def __getattr__(self, name: str) -> Any:
        return getattr(
            self.session if hasattr(Session, name) or name in OF_SESSION else self.request, name
        )

    def but(self, **changes: Any) -> "Case":
        """The same with other attributes, of the session or of the request."""
        of_session = {name: value for name, value in changes.items() if name in OF_SESSION}
        of_request = {name: value for name, value in changes.items() if name not in OF_SESSION}
        return Case(replace(self.session, **of_session), replace(self.request, **of_request))

    def sham(self, draw: int) -> "Case":
        return Case(self.session, self.request.sham(draw))

    def coefficients(self) -> Coefficients:
        return self.session.coefficients(self.request)


def case_of(model, processor, forget, retain, *more, **changes) -> Case:
    """A case from its parts; `more` and `changes` as in `Request`, and as in `Session`."""
    of_session = {name: changes.pop(name) for name in list(changes) if name in OF_SESSION}
    return Case(Session(model, processor, **of_session), Request(forget, retain, *more, **changes))


def opened(subject: tuple[Session, Callable[[list[str]], Request]], people: list[str]) -> Case:
    """The case of some people, from a session and its requests."""
    session, requests = subject
    return Case(session, requests(people))
