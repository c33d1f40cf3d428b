"""The copied tables: every figure is that of metrics.json, and strange names break no table."""

import re

from pipeline.report_copy import copies


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_holds_the_figures_of_metrics_json(made_up_run):
    metrics = made_up_run().metrics
    head, rule, *rows = [cells(line) for line in copies(metrics).markdown.splitlines()]
    assert {len(row) for row in (head, rule, *rows)} == {len(head)}
    [books] = [row for row in rows if row[0] == "books"]
    found = metrics["domains"]["books"]
    assert books[1] == f"{found['evaluated_users']:,}"
    joint = head.index("Hydra joint")
    assert books[joint].strip("*") == f"{found['models']['hydra_joint']['ndcg@10']:.4f}"
    delta = found["deltas"]["hydra_joint"]
    low, high = delta["ci95"]
    assert books[-1] == f"{delta['ndcg@10']:+.4f} [{low:+.4f}, {high:+.4f}]"
    assert rows[-1][0] == "All domains"


def test_the_best_model_of_a_row_is_bold_and_the_oracle_never(made_up_run):
    metrics = made_up_run(models=("popularity", "sasrec", "hydra_joint", "oracle")).metrics
    head, _, *rows = [cells(line) for line in copies(metrics).markdown.splitlines()]
    for row in rows:
        [bold] = [cell for cell in row if cell.startswith("**")]
        others = [float(c) for c in row[2 : head.index("Oracle")] if not c.startswith("**")]
        assert float(bold.strip("*")) >= max(others)


def test_latex_has_a_row_a_domain_and_as_many_cells_in_each(made_up_run):
    lines = copies(made_up_run().metrics).latex.splitlines()
    assert lines[0].startswith(r"\begin{tabular}{l")
    columns = len(lines[0].removeprefix(r"\begin{tabular}{").removesuffix("}"))
    rows = [line for line in lines if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}
    assert lines[-1] == r"\end{tabular}"


def test_names_of_strangers_break_neither_table(made_up_run):
    name = r"a|b & c_d 50% {e} \f ~<i>"
    text = copies(made_up_run(domains=(name, "toys")).metrics)
    lines = text.markdown.splitlines()
    assert {len(cells(line)) for line in lines} == {len(cells(lines[0]))}
    assert "<i>" not in text.markdown
    [row] = [line for line in text.latex.splitlines() if line.startswith("a|b")]
    assert row.startswith(r"a|b \& c\_d 50\% \{e\} \textbackslash{}f \textasciitilde{}<i> & ")
