"""A real SQLite store for a session; every test registers models under names of its own."""

import pytest
from registries import Store


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def name(store):
    return store.name()
