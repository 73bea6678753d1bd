from __future__ import annotations

import sys
from pathlib import Path

from gradcheck.uv_tool import parse_pip_settings, pip_settings, uv_settings


def test_settings_of_pip_become_those_of_uv(tmp_path):
    (tmp_path / "wheels").mkdir()
    pip = {
        "index-url": "https://user:word@index/simple",
        "extra-index-url": f"https://more/simple file:///no/such/folder file://{tmp_path}",
        "find-links": f"{tmp_path / 'wheels'} /no/such/folder https://links/",
        "trusted-host": "index",
        "cert": "/etc/cert.pem",
        "no-index": "false",
    }
    variables, flags = uv_settings(pip, {})
    assert flags == []
    assert variables == {
        "UV_DEFAULT_INDEX": "https://user:word@index/simple",
        "UV_EXTRA_INDEX_URL": f"https://more/simple file://{tmp_path}",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": f"{tmp_path / 'wheels'},https://links/",
        "UV_INSECURE_HOST": "index",
        "SSL_CERT_FILE": "/etc/cert.pem",
    }
    assert uv_settings({"no-index": "1"}, {}) == ({}, ["--no-index"])
    assert uv_settings({}, {}) == ({}, [])


def test_what_is_set_for_uv_wins():
    pip = {"index-url": "https://pip/", "extra-index-url": "https://pip/", "find-links": "https://pip/", "cert": "/a"}
    environ = {"UV_INDEX_URL": "https://uv/", "UV_FIND_LINKS": "https://uv/", "SSL_CERT_FILE": "/b"}
    assert uv_settings(pip, environ) == ({}, [])


def test_reads_what_pip_lists():
    listing = (
        ":env:.find-links='/a'\nglobal.find-links='/b'\nglobal.index-url='https://g/'\ninstall.index-url='https://i/'\n"
        "global.extra-index-url='\\nhttps://x/\\nhttps://y/'\nfreeze.timeout='10'\nnonsense\nglobal.odd=unquoted text\n"
    )
    assert parse_pip_settings(listing) == {
        "find-links": "/a",
        "index-url": "https://i/",
        "extra-index-url": "\nhttps://x/\nhttps://y/",
    }


def test_pip_may_be_missing(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/python")
    monkeypatch.setenv("PIP_INDEX_URL", "https://env/")
    assert pip_settings(Path("/no/other"))["index-url"] == "https://env/"
