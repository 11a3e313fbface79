"""Progress is timed for programs and drawn on terminals once work takes long; drawn here on a console in memory."""

import io
import time

from rich.console import Console

from walras.progress import Bars, Lines, Progress, on_terminal


def screen() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80)


def test_stages_are_timed_and_repeated_ones_add_up():
    with Progress() as progress:
        progress.stage("Reading")
        progress.step(1, 2)
        progress.stage("Planning")
        time.sleep(0.01)
        progress.stage("Reading")
    assert list(progress.seconds) == ["Reading", "Planning"]
    assert progress.seconds["Planning"] >= 0.01


def test_a_short_task_draws_nothing():
    console = screen()
    with Bars(patience=60, console=console) as progress:
        progress.stage("Reading")
        progress.step(1, 2)
    assert console.file.getvalue() == ""


def test_a_long_task_names_its_stage_and_count():
    console = screen()
    with Bars(patience=0.01, console=console) as progress:
        progress.stage("Reading")
        time.sleep(0.2)
        progress.stage("Planning")
        progress.step(3, 7)
        time.sleep(0.3)
    assert "Planning" in console.file.getvalue() and "3/7" in console.file.getvalue()


def test_closing_before_the_bar_appears_leaves_it_away():
    console = screen()
    progress = Bars(patience=0.05, console=console)
    progress.close()
    time.sleep(0.15)
    assert console.file.getvalue() == ""


def test_a_pipe_gets_a_line_for_each_stage_of_longer_work(capsys):
    assert type(on_terminal()) is Lines
    for patience, written in ((0.0, "Planning ...\nfound\n"), (60.0, "")):
        with Lines(patience) as progress:
            progress.stage("Planning")
            progress.say("found")
        assert capsys.readouterr().err == written
