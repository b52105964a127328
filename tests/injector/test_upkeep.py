"""Certificate and join ConfigMaps are kept as they have to be, against an API that checks what it gets."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from cryptography import x509
from lightkube import AsyncClient, KubeConfig

from services.injector.certificate import LIFE, RENEW_BEFORE, renewed
from services.injector.cluster import ClusterError, Lightkube, Names
from services.injector.upkeep import certify, spread, utc_now
from tests.kubernetes import HOOKS, WEBHOOKS, FakeApi, fake_api

NAME = "sealmesh-injector.mesh.svc"
SECRET = "/api/v1/namespaces/mesh/secrets/sealmesh-injector-tls"
HOOK = f"{HOOKS}/sealmesh-injector"
NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as running:
        running.put(HOOK, webhooks=WEBHOOKS)
        yield running


@pytest.fixture
async def cluster(api: FakeApi) -> AsyncIterator[Lightkube]:
    client = AsyncClient(KubeConfig.from_dict(api.config()), trust_env=False)
    yield Lightkube("mesh", Names(), client)
    await client.close()


def trusted(api: FakeApi) -> bytes:
    return base64.b64decode(api.objects[HOOK]["webhooks"][0]["clientConfig"]["caBundle"])


def test_a_certificate_is_what_a_tls_client_wants() -> None:
    """It verifies against its CA, for its name and for nothing else."""
    made = renewed(NAME, utc_now())
    leaf, ca = x509.load_pem_x509_certificate(made.chain), x509.load_pem_x509_certificate(made.authorities)
    leaf.verify_directly_issued_by(ca)
    context = ssl.create_default_context(cadata=made.authorities.decode())
    assert context.cert_store_stats()["x509_ca"] == 1
    assert not made.due(NAME, utc_now())
    assert made.due("other.mesh.svc", utc_now())
    assert "PRIVATE" not in repr(made)


def test_a_certificate_is_due_in_time() -> None:
    """A month before it ends."""
    made = renewed(NAME, NOW)
    assert not made.due(NAME, NOW + LIFE - RENEW_BEFORE)
    assert made.due(NAME, NOW + LIFE - RENEW_BEFORE + dt.timedelta(seconds=1))


async def test_the_first_certificate(api: FakeApi, cluster: Lightkube) -> None:
    """It is trusted before it is there, and the next look changes nothing."""
    made = await certify(cluster, NAME)
    assert api.verbs() == [("PATCH", HOOK), ("POST", SECRET.rpartition("/")[0])]
    assert trusted(api) == made.authorities
    assert api.objects[SECRET]["type"] == "kubernetes.io/tls"
    api.asked.clear()
    assert await certify(cluster, NAME) == made
    assert api.verbs() == []


async def test_a_renewal_keeps_the_old_ca_trusted(api: FakeApi, cluster: Lightkube) -> None:
    """Replicas that still serve with the old certificate are believed until they have changed over."""
    first = await certify(cluster, NAME, lambda: NOW)
    second = await certify(cluster, NAME, lambda: NOW + LIFE - RENEW_BEFORE * 0.9)
    assert second.chain != first.chain
    assert trusted(api).endswith(first.authorities)
    third = await certify(cluster, NAME, lambda: NOW + 2 * LIFE)
    assert len(x509.load_pem_x509_certificates(third.authorities)) == 2


async def test_who_is_second_takes_the_firsts(api: FakeApi, cluster: Lightkube) -> None:
    """Two replicas that start at once end up with one certificate."""
    other = await certify(cluster, NAME)
    held = await cluster.certificate()
    assert not await cluster.put_certificate(renewed(NAME, utc_now()), None)
    assert held is not None
    api.put(SECRET, data=api.objects[SECRET]["data"])
    assert not await cluster.put_certificate(renewed(NAME, utc_now()), held)
    assert await certify(cluster, NAME) == other


@pytest.mark.parametrize("part", ["chain", "key", "authorities"])
@pytest.mark.parametrize("instead", ["", "rubbish", "another's"])
def test_a_certificate_whose_parts_are_not_of_one_piece_is_due(part: str, instead: str) -> None:
    """No replica could serve with it, or the API server would trust nobody."""
    made, other = renewed(NAME, NOW), renewed(NAME, NOW)
    content = getattr(other, part) if instead == "another's" else instead.encode()
    assert not made.due(NAME, NOW)
    assert replace(made, **{part: content}).due(NAME, NOW)


async def test_a_damaged_certificate_is_made_anew(api: FakeApi, cluster: Lightkube) -> None:
    """As one that is missing."""
    api.put(SECRET, data={"tls.crt": base64.b64encode(b"rubbish").decode()})
    assert not (await certify(cluster, NAME)).due(NAME, utc_now())


async def test_namespaces_get_what_their_nodes_join_with(api: FakeApi, cluster: Lightkube) -> None:
    """Those that ask for sidecars, new ones and changed ones, and no other."""
    api.namespace("shop")
    api.namespace("other", inject=False)
    api.namespace("gone", phase="Terminating")
    await spread(cluster, "mesh")
    assert api.verbs() == []  # auth has published nothing yet
    api.put("/api/v1/namespaces/mesh/configmaps/sealmesh-join", data={"join-key": "a"})
    await spread(cluster, "mesh")
    copy = "/api/v1/namespaces/shop/configmaps/sealmesh-join"
    assert api.verbs() == [("POST", copy.rpartition("/")[0])]
    api.put(copy, data={"join-key": "forged"})
    await spread(cluster, "mesh")
    assert api.objects[copy]["data"] == {"join-key": "a"}
    api.asked.clear()
    await spread(cluster, "mesh")
    assert api.verbs() == []


async def test_a_namespace_that_takes_nothing_is_alone_with_that(api: FakeApi, cluster: Lightkube) -> None:
    """A forgery that cannot be changed keeps neither the key from the others, nor theirs from being right."""
    maps = "/api/v1/namespaces/{}/configmaps/sealmesh-join"
    for name in ("a-forger", "new", "shop"):
        api.namespace(name)
    api.put(maps.format("mesh"), data={"join-key": "a"})
    api.put(maps.format("a-forger"), data={"join-key": "forged"}, immutable=True)
    api.put(maps.format("shop"), data={"join-key": "forged"})
    with pytest.raises(ClusterError, match="nodes of a-forger join with: field is immutable"):
        await spread(cluster, "mesh")
    assert [api.objects[maps.format(name)]["data"] for name in ("new", "shop")] == [{"join-key": "a"}] * 2


async def test_an_api_that_fails_is_told(api: FakeApi, cluster: Lightkube) -> None:
    """In one line, with what was to be done."""
    api.broken = True
    with pytest.raises(ClusterError, match="cannot read the certificate: etcd is away"):
        await certify(cluster, NAME)
    with pytest.raises(ClusterError, match="cannot read what nodes of mesh join with"):
        await spread(cluster, "mesh")
