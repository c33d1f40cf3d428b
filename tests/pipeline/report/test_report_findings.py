import pytest

from pipeline.report_differences import transfers
from pipeline.report_files import RunFiles
from pipeline.report_findings import finding, key_figures
from pipeline.report_results import domain_panels, group_panels


def with_intervals(run: RunFiles, intervals: dict[str, tuple[float, float]]) -> dict:
    metrics = run.metrics
    for name, (low, high) in intervals.items():
        metrics["domains"][name]["deltas"]["hydra_joint"] = {
            "against": "hydra_single",
            "ndcg@10": (low + high) / 2,
            "ci95": [low, high],
            "negative_transfer": high < 0,
        }
    return metrics


GAIN, LOSS, LEVEL = (0.01, 0.03), (-0.03, -0.01), (-0.01, 0.01)


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ((GAIN, GAIN, GAIN), "better in 3 of 3 domains."),
        ((LOSS, LOSS, GAIN), "better in 1 of 3 domains and worse in 2 of 3 (books and health)."),
        ((LEVEL, LEVEL, LEVEL), "no clear difference in 3 of 3 domains."),
        (
            (GAIN, LOSS, LEVEL),
            "better in 1 of 3 domains, worse in 1 of 3 (health) and no clear difference in 1 of 3.",
        ),
    ],
)
def test_the_headline_counts_gains_losses_and_the_rest(made_up_run, intervals, verdict):
    names = ("books", "health", "clothing")
    metrics = with_intervals(made_up_run(domains=names), dict(zip(names, intervals, strict=True)))
    assert finding(metrics) == (
        f"One Hydra trained on all domains together, against one trained on each alone: {verdict}"
    )


@pytest.mark.parametrize(
    ("interval", "verdict"), [(GAIN, "better"), (LOSS, "worse"), (LEVEL, "no clear difference")]
)
def test_a_single_domain_is_named(made_up_run, interval, verdict):
    metrics = with_intervals(made_up_run(domains=("books",)), {"books": interval})
    assert finding(metrics).endswith(f": {verdict} in books, the only domain compared.")


def test_without_transfer_the_best_model_is_the_finding(made_up_run):
    metrics = made_up_run(models=("popularity", "sasrec", "oracle")).metrics
    best, floor = (metrics["groups"]["all"][m]["ndcg@10"] for m in ("sasrec", "popularity"))
    assert finding(metrics) == (
        f"SASRec ranks best of 2 models: NDCG@10 {best:.4f} on average over 5 domains, "
        f"{best / floor:.1f} times popularity."
    )


def test_models_without_a_common_domain_have_no_average(made_up_run):
    metrics = made_up_run(models=("sasrec", "item_knn")).metrics
    metrics["groups"]["all"] = {}
    assert (
        finding(metrics) == "No model was run in every domain, so there is no average to compare."
    )
    assert key_figures(metrics) == []


def test_key_figures_are_those_of_the_joint_model(made_up_run):
    metrics = made_up_run(models=("popularity", "hydra_single", "hydra_joint", "oracle")).metrics
    models = metrics["groups"]["all"]
    figures = {figure.title: figure.value.text for figure in key_figures(metrics)}
    joint = models["hydra_joint"]["ndcg@10"]
    assert figures["NDCG@10, Hydra joint"] == f"{joint:.4f}"
    assert figures["Against popularity"] == f"{joint / models['popularity']['ndcg@10']:.1f}×"
    assert figures["Of the oracle"] == f"{joint / models['oracle']['ndcg@10']:.0%}"
    assert len(figures) == 4


def test_bars_share_one_scale_and_the_oracle_is_never_the_best(made_up_run):
    metrics = made_up_run(models=("popularity", "sasrec", "oracle")).metrics
    for panel in [*group_panels(metrics), *domain_panels(metrics)]:
        assert [bar.label for bar in panel.bars] == ["Popularity", "SASRec", "Oracle"]
        assert [bar.is_best for bar in panel.bars].count(True) == 1
        assert not panel.bars[-1].is_best
        assert max(bar.span.high_at for bar in panel.bars) == 100
        first, second = panel.bars[0].span, panel.bars[1].span
        assert first.at / second.at == pytest.approx(
            first.value.value / second.value.value, rel=1e-3
        )
        assert first.low_at < first.at < first.high_at


def test_differences_lie_around_the_middle(made_up_run):
    names = ("books", "health", "clothing")
    metrics = with_intervals(
        made_up_run(domains=names), dict(zip(names, (GAIN, LOSS, LEVEL), strict=True))
    )
    gain, loss, level = transfers(metrics)[:3]
    assert [gain.verdict, loss.verdict, level.verdict] == ["gain", "loss", "level"]
    assert gain.span.low_at > 50 > loss.span.high_at
    assert level.span.at == 50
    assert all(0 <= row.span.low_at <= row.span.high_at <= 100 for row in transfers(metrics))


def test_a_group_of_one_domain_is_not_repeated_in_the_differences(made_up_run):
    titles = [row.title for row in transfers(made_up_run().metrics)]
    assert titles[-2:] == ["Small domains", "All domains"]
    assert "Large domains" not in titles


def test_differences_go_by_size_whatever_counts_as_large(made_up_run):
    metrics = made_up_run().metrics
    metrics["domains"]["toys"]["size_group"] = "large"
    titles = [row.title for row in transfers(metrics) if not row.is_group]
    assert titles == ["books", "health", "clothing", "beauty", "toys"]
