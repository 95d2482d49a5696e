import json
import tests.test_killed_talkers_lose_nothing as t

real = t.check_the_whole
realp = t.problems


def dump(journal, control=None):
    out = {}
    for table in ("turn", "item", "recovery", "handle", "orphan", "conversation"):
        cur = journal._connection.execute(f"SELECT * FROM perdure.{table}")
        cols = [c.name for c in cur.description]
        out[table] = (
            [
                dict(
                    zip(
                        cols,
                        map(
                            lambda v: (
                                bytes(v).decode()
                                if isinstance(v, (bytes, memoryview)) and cols
                                else v
                            ),
                            row,
                        ),
                    )
                )
                for row in cur.fetchall()
            ]
            if table != "handle"
            else [
                dict((k, v) for k, v in zip(cols, row) if k != "key" and k != "body")
                for row in cur.fetchall()
            ]
        )
    __import__("pathlib").Path("/tmp/dump.json").write_text(json.dumps(out, default=str))


def problems(journal, said):
    c = t.Control(BASE[0])
    __import__("pathlib").Path("/tmp/requests.json").write_text(json.dumps(c.ask("GET", "/_provider/requests")[1]["requests"], default=str))
    c.close()
    found = list(realp(journal, said))
    dump(journal)
    __import__("pathlib").Path("/tmp/said.json").write_text(json.dumps([s.__dict__ for s in said], default=str))
    return found


def whole(journal, control):
    r = control.ask("GET", "/_provider/requests")[1]["requests"]
    __import__("pathlib").Path("/tmp/requests.json").write_text(json.dumps(r, default=str))
    real(journal, control)


BASE = []
RC = t.Control


class C(RC):
    def __init__(self, base):
        BASE.append(base)
        super().__init__(base)


t.Control = C
t.problems = problems
t.check_the_whole = whole


class Both:
    pass


import pytest

orig = t.Journal.__init__


def test_it(tmp_path):
    t.test_what_talkers_were_answered_is_so(tmp_path)
