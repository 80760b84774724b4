"""What `meshfd doctor` finds, and what it makes of it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from meshfd import doctor, probes, system_calls
from meshfd.cgroup_limits import CONTROLLERS
from meshfd.cli import main
from meshfd.doctor import Finding, examine, format_findings, report_findings
from tests.support.cgroups import hierarchy_here
from tests.support.need import require_root
from tests.support.ordinary_user import as_ordinary_user

PRESENT = Finding("wheels", present=True, needed=True, detail="", lost="no rolling")
MISSING = Finding(
    "horn", present=False, needed=False, detail="Function not implemented", lost="no noise"
)


def test_a_table_for_people() -> None:
    """Each feature has a row; what is missing says why and what that costs."""
    assert format_findings([PRESENT, MISSING]).splitlines() == [
        "FEATURE  PRESENT  NEEDED",
        "wheels   yes      yes",
        "horn     no",
        "",
        "no horn (Function not implemented): no noise",
        "meshfd can work here",
    ]


def test_a_needed_feature_decides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 0 when nothing needed is missing, else 1; JSON says the same."""
    for findings, works in (
        ([PRESENT, MISSING], True),
        ([PRESENT, replace(MISSING, needed=True)], False),
    ):
        monkeypatch.setattr(doctor, "examine", lambda findings=findings: findings)
        assert main(["doctor"]) == (0 if works else 1)
        assert main(["doctor", "--json"]) == (0 if works else 1)
        out = capsys.readouterr().out
        assert json.loads(out[out.index("{") :])["works"] is works
        assert ("meshfd can work here" in out) is works


def test_the_report_has_every_field() -> None:
    """Scripts get one record per feature."""
    assert report_findings([MISSING])["features"] == [
        {
            "name": "horn",
            "present": False,
            "needed": False,
            "detail": "Function not implemented",
            "lost": "no noise",
        }
    ]


@pytest.mark.live
def test_everything_is_probed_here() -> None:
    """Where the live tests can run, all that is needed is found, a redirected connection last."""
    findings = examine()
    assert [one.name for one in findings if one.needed and not one.present] == []
    assert findings[-1].name == "a redirected connection"
    assert len({one.name for one in findings}) == len(findings)


@pytest.mark.live
def test_a_supervisor_above_is_named() -> None:
    """Under another seccomp supervisor, meshfd itself here, the doctor says that this is why."""
    command = [sys.executable, "-m", "meshfd"]
    done = subprocess.run(
        [*command, "exec", "--", *command, "doctor"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "another seccomp supervisor has this process" in done.stdout
    assert "meshfd cannot work here" in done.stdout


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has more than an ordinary user")
def test_an_ordinary_user_has_less() -> None:
    """Without root the main job works; what only root may do is found missing."""
    done = subprocess.run(
        as_ordinary_user([sys.executable, "-m", "meshfd", "doctor", "--json"]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    missing = {one["name"] for one in json.loads(done.stdout)["features"] if not one["present"]}
    only_root = {"change of user", "filter without no_new_privs", "network namespaces"}
    assert {*only_root, "cgroup version 2"} <= missing
    assert "SO_NETNS_COOKIE" not in missing


@pytest.mark.live
def test_controllers_of_cgroups_are_told() -> None:
    """Root has those that are at the root of cgroup v2; each has a row, and a reason if missing."""
    require_root()
    there = (hierarchy_here().mount / "cgroup.controllers").read_text().split()
    rows = {one.name: one for one in examine() if one.name.startswith("cgroup ")}
    assert rows.pop("cgroup version 2").present
    assert set(rows) == {f"cgroup {name}" for name in CONTROLLERS}
    assert {name for name, row in rows.items() if row.present} == {
        f"cgroup {name}" for name in CONTROLLERS if name in there
    }
    assert all(row.detail for row in rows.values() if not row.present)


def test_a_probe_that_dies_is_a_missing_feature() -> None:
    """A child that gives no answer makes each feature missing, with its end as the reason."""

    def die() -> probes.Reasons:
        os._exit(7)

    assert probes.in_child(die)["anything"] == "the probe ended with status 7"


def test_an_unknown_flag_is_told_from_a_missing_notification() -> None:
    """The probe of ADDFD can say no: a flag that no kernel has is not found."""

    def ask() -> probes.Reasons:
        system_calls.set_no_new_privs()
        listener_fd = system_calls.install_probe_filter(system_calls.NEW_LISTENER)
        try:
            system_calls.add_fd_to_nobody(listener_fd, 1 << 30)
        except OSError as error:
            return {"flag": errno.errorcode[error.errno or 0]}
        return {"flag": None}

    assert probes.in_child(ask) == {"flag": "EINVAL"}
