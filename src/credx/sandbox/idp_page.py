"""The one page of the sandbox's identity provider: who are you? One button for each person."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credx.sandbox.idp_tokens import Person

_STYLE: Final = """
:root { color-scheme: light dark; --page:#f4f5f7; --card:#fff; --text:#1b1f24; --soft:#5d6673;
  --line:#dde1e6; --accent:#2557d6; --tint:#eef3ff }
@media (prefers-color-scheme: dark) { :root { --page:#101317; --card:#191d23; --text:#e8ebef;
  --soft:#98a2b0; --line:#2c323b; --accent:#7aa2ff; --tint:#1c2638 } }
* { box-sizing: border-box }
body { margin:0; min-height:100vh; display:grid; place-items:center; padding:1.5rem; background:var(--page);
  color:var(--text); font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif }
main { width:100%; max-width:25rem; padding:2rem; background:var(--card); border:1px solid var(--line);
  border-radius:14px; box-shadow:0 8px 30px rgb(0 0 0/.07) }
h1 { margin:0 0 .35rem; font-size:1.35rem; letter-spacing:-.01em }
p { margin:0; color:var(--soft); font-size:.93rem }
form { margin:1.5rem 0 0; display:grid; gap:.65rem }
button { font:inherit; color:inherit; cursor:pointer; border-radius:10px }
.person { display:flex; gap:.9rem; align-items:center; width:100%; padding:.8rem .9rem; text-align:left;
  background:var(--card); border:1px solid var(--line) }
.person:hover, .person:focus-visible, .hinted { border-color:var(--accent); background:var(--tint) }
button:focus-visible { outline:2px solid var(--accent); outline-offset:2px }
.face { flex:none; width:2.5rem; height:2.5rem; display:grid; place-items:center; border-radius:50%;
  background:var(--accent); color:var(--card); font-weight:600 }
.who { display:grid; min-width:0 } .who b { font-weight:600 }
.who span { color:var(--soft); font-size:.86rem }
.no { justify-self:center; padding:.3rem .8rem; border:0; background:none; color:var(--soft); font-size:.9rem }
.no:hover { color:var(--text); text-decoration:underline }
footer { margin-top:1.5rem; padding-top:1rem; border-top:1px solid var(--line) }
"""

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Sign in · credx sandbox</title><style nonce="{nonce}">{style}</style></head>
<body><main><h1>Who are you today?</h1>
<p><strong>{client}</strong> on this computer wants to know who you are.</p>
<form method="post" action="/authorize?{query}">
<input type="hidden" name="csrf" value="{csrf}">
{people}
<button class="no" name="refuse" value="1">Don&rsquo;t sign in</button>
</form>
<footer><p>This identity provider is part of the credx sandbox: nobody here exists, so nobody needs a
password.</p></footer></main></body></html>
"""

_PERSON: Final = """<button class="person{hinted}" name="username" value="{username}"{focus}>
<span class="face" aria-hidden="true">{initial}</span>
<span class="who"><b>{name}</b><span>{email} · {groups}</span></span></button>"""


def render(
    people: Sequence[Person], *, client: str, query: str, csrf: str, nonce: str, hint: str | None
) -> str:
    """The page as HTML. ``hint`` (``login_hint``) puts that person first."""
    ordered = sorted(people, key=lambda person: not _is_hinted(person, hint))
    return _PAGE.format(
        nonce=escape(nonce),
        style=_STYLE,
        client=escape(client),
        query=escape(query),
        csrf=escape(csrf),
        people="\n".join(_person(person, hinted=_is_hinted(person, hint)) for person in ordered),
    )


def headers(*, nonce: str, redirect_uri: str) -> dict[str, str]:
    """Nothing from elsewhere, no frame, no script; the form may lead to the loopback callback only."""
    callback = redirect_uri.removesuffix("/callback")
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self' {callback}; "
            "frame-ancestors 'none'; base-uri 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _person(person: Person, *, hinted: bool) -> str:
    return _PERSON.format(
        hinted=" hinted" if hinted else "",
        focus=" autofocus" if hinted else "",
        username=escape(person.username),
        initial=escape(person.name[:1]),
        name=escape(person.name),
        email=escape(person.email),
        groups=escape(", ".join(person.groups)),
    )


def _is_hinted(person: Person, hint: str | None) -> bool:
    return hint in {person.username, person.email, person.subject}
