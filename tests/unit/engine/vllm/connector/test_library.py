"""The shared tier asked from a thread, on real files."""

from dataclasses import replace

import numpy as np
import pytest

from mooring.engine.vllm.connector.geometry import Geometry
from mooring.engine.vllm.connector.library import Library
from mooring.engine.vllm.connector.settings import open_store, read_settings

GEOMETRY = Geometry("f" * 32, block_tokens=16, block_bytes=100, object_blocks=2)
A, B = "aa" * 32, "bb" * 32


@pytest.fixture
def store(tmp_path):
    return open_store(read_settings({"tier": "files", "root": str(tmp_path)}), GEOMETRY.fingerprint)


@pytest.fixture
def library(store):
    library = Library(store, "files", orphan_age_s=3600, maintenance_s=3600)
    yield library
    library.close()


def write(store, context):
    manifest = GEOMETRY.manifest(context, 48)
    store.begin(manifest)
    for part in manifest.objects():
        store.put_object(part, np.zeros((part.end - part.start) * 100, np.uint8))
    store.commit(manifest)
    return replace(manifest, complete=True)


def test_library_finds_what_is_there(store, library):
    manifest = write(store, A)
    assert library.find(A).result() == manifest
    assert library.find(B).result() is None
    assert GEOMETRY.fits(manifest, A, 48)
    assert not GEOMETRY.fits(manifest, A, 32)
    assert not GEOMETRY.fits(manifest, B, 48)


def test_question_after_a_deletion_sees_it_done(store, library):
    write(store, A)
    write(store, B)
    library.delete([A])
    assert library.find(A).result() is None
    assert library.find(B).result() is not None


def test_library_deletes_all_but_those_named(store, library):
    write(store, A)
    write(store, B)
    library.delete_all_but([B]).result()
    assert store.contexts() == {B}


def test_library_removes_orphans_at_its_start(store):
    store.begin(replace(GEOMETRY.manifest(A, 48), written_at=1.0))
    library = Library(store, "files", orphan_age_s=60, maintenance_s=3600)
    while store.contexts():
        pass
    library.close()
