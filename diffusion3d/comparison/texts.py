"""Texts of runs, made fit for a page that is given away: without secrets and without paths of the machine."""

from __future__ import annotations

import re

from diffusion3d.overrides import secrets

LONGEST = 2000
PART = r"""[/\\]+[^\s/\\'"<>|:,;()\[\]{}]+"""
URL = r"""\b(?!file:)[A-Za-z][\w+.-]+://[^\s'"]*"""
BEGINNING = r"(?:\bfile:/*|(?<![\w/.~\\-]))"
HOME, ROOT = rf"~(?:[A-Za-z][\w-]*)?{PART}", rf"(?:[A-Za-z]:)?{PART}{PART}"
ABSOLUTE = re.compile(rf"(?P<url>{URL})|^[/\\][^\s/\\]+$|{BEGINNING}(?:{HOME}|{ROOT})(?:{PART})*[/\\]*")
TOKEN = re.compile(r"\b(?:hf_|wandb_v1_|sk-)\w{16,}")
KEY_OF_40 = re.compile(r"\b([0-9a-fA-F]{7})[0-9a-fA-F]{33}\b")
SECRET_KEY = re.compile(r"(?:api_?key|secret|passw(?:or)?d|(?:auth|access|hub|hf)_?token)$", re.IGNORECASE)


def clean(text: str, key: str = "") -> str:
    """The text without values of secret environment variables, access tokens and folders of absolute paths.

    Args:
        text: anything; no more than its first `LONGEST` characters are kept.
        key: the dotted config key whose value it is.

    >>> clean("no such file: /home/me/data/train, see https://example.org/a/b")
    'no such file: …/train, see https://example.org/a/b'
    """
    if SECRET_KEY.search(key):
        return "***"
    for value in secrets().values():
        text = text.replace(value, "***")
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    text = KEY_OF_40.sub(r"\1…", TOKEN.sub("***", text))
    text = ABSOLUTE.sub(lambda found: found["url"] or "…/" + re.split(r"[/\\]+", found[0].rstrip("/\\"))[-1], text)
    return text.encode("utf-8", "replace").decode()
