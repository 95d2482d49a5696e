"""One suite that every store must pass, for stores of your own as well.

What a store promises is written in :mod:`perdure.engine.ops`; here it is put to the test, with
pytest. A store is ready for conversations when this passes:

    from perdure.testing.conformance import Site, StoreConformance

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def site(self, tmp_path):
            clock = Clock()
            return Site(lambda: MyStore(tmp_path / "my.db", clock=clock.now), clock.advance)

``Site.open`` gives a store on one database, each call as another process would open it;
``Site.advance`` turns the clock that the store reads. The database may hold other data. A store
with an async face is tested through it by ``Site(lambda: Awaited(MyStore(…)), …)``.
"""

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "bench", "accepting", "branching", "remembering", "ending", "background", "threads",
            "runs", "replicas", "leftovers", "reading", "learning", "recalling", "people",
            "bringing", "racing", "extremes",
        )
    )
)  # fmt: skip

from perdure.testing.conformance.accepting import Accepting  # noqa: E402  # rewritten from here on
from perdure.testing.conformance.background import Background  # noqa: E402
from perdure.testing.conformance.bench import Awaited, Bench, Site  # noqa: E402
from perdure.testing.conformance.branching import Branching  # noqa: E402
from perdure.testing.conformance.bringing import Bringing  # noqa: E402
from perdure.testing.conformance.ending import Ending  # noqa: E402
from perdure.testing.conformance.extremes import Extremes  # noqa: E402
from perdure.testing.conformance.learning import Learning  # noqa: E402
from perdure.testing.conformance.leftovers import Leftovers  # noqa: E402
from perdure.testing.conformance.people import People, Tenants  # noqa: E402
from perdure.testing.conformance.racing import Racing  # noqa: E402
from perdure.testing.conformance.reading import Reading  # noqa: E402
from perdure.testing.conformance.recalling import Recalling  # noqa: E402
from perdure.testing.conformance.remembering import Remembering  # noqa: E402
from perdure.testing.conformance.replicas import Replicas  # noqa: E402
from perdure.testing.conformance.runs import Runs  # noqa: E402
from perdure.testing.conformance.threads import Threads  # noqa: E402

__all__ = ["Awaited", "Bench", "Site", "StoreConformance"]


class StoreConformance(
    Accepting,
    Branching,
    Remembering,
    Ending,
    Background,
    Threads,
    Runs,
    Replicas,
    Leftovers,
    Reading,
    Learning,
    Recalling,
    People,
    Tenants,
    Bringing,
    Racing,
    Extremes,
):
    """Derive a test class from this and give it a ``site`` fixture."""

    @pytest.fixture
    def bench(self, site: Site) -> Iterator[Bench]:
        """Open the store under test, for a tenant of the test's own."""
        bench = Bench(site)
        yield bench
        bench.close()
