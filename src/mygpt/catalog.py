"""Every technique: where its code, its paper and its page are. Strings only: reading this table imports nothing.

One row is one technique, one file, one test (`tests/STAGE/test_FILE.py`), one page. A test holds each row to that.
"""

import difflib
from dataclasses import dataclass

from mygpt.core.errors import UsageError


@dataclass(frozen=True)
class Technique:
    name: str  # `mygpt where NAME`
    stage: str  # the folder: "data", "finetune", ...
    path: str  # "mygpt.finetune.sft:sft"
    paper: str  # that it follows, or "ours"
    page: str  # "docs/finetune/sft.md"


TECHNIQUES: tuple[Technique, ...] = (
    Technique("ingest", "data", "mygpt.data.ingest:ingest", "ours", "docs/data/ingest.md"),
    Technique(
        "question_answer",
        "data",
        "mygpt.data.question_answer:question_answer",
        "Alberti et al. 2019, arXiv:1906.05416 (answer first, then its question, then a second reading)",
        "docs/data/question_answer.md",
    ),
    Technique("replay", "data", "mygpt.data.replay:replay", "Huang et al. 2024, arXiv:2403.01244", "docs/data/replay.md"),
    Technique(
        "preferences_from_ratings",
        "data",
        "mygpt.data.preferences_from_ratings:preferences_from_ratings",
        "Ouyang et al. 2022, arXiv:2203.02155, section 3.4",
        "docs/data/preferences_from_ratings.md",
    ),
    Technique(
        "sft",
        "finetune",
        "mygpt.finetune.sft:sft",
        "Ouyang et al. 2022, arXiv:2203.02155, section 3.5",
        "docs/finetune/sft.md",
    ),
    Technique(
        "full", "lm", "mygpt.lm.adapters.full:Full", "Howard and Ruder 2018, arXiv:1801.06146, section 3.3", "docs/finetune/full.md"
    ),
    Technique(
        "freeze",
        "lm",
        "mygpt.lm.adapters.freeze:Freeze",
        "Lee et al. 2019, arXiv:1911.03090; a rate for each layer: Howard and Ruder 2018, arXiv:1801.06146",
        "docs/finetune/freeze.md",
    ),
    Technique(
        "lora",
        "lm",
        "mygpt.lm.adapters.lora:LoRA",
        "Hu et al. 2021, arXiv:2106.09685; rsLoRA: Kalajdzievski 2023, arXiv:2312.03732; DoRA: Liu et al. 2024, arXiv:2402.09353",
        "docs/finetune/lora.md",
    ),
    Technique("prefix", "lm", "mygpt.lm.adapters.prefix:Prefix", "Li and Liang 2021, arXiv:2101.00190", "docs/finetune/prefix.md"),
    Technique("prompt", "lm", "mygpt.lm.adapters.prompt:Prompt", "Lester et al. 2021, arXiv:2104.08691", "docs/finetune/prompt.md"),
    Technique("p_tuning", "lm", "mygpt.lm.adapters.p_tuning:PTuning", "Liu et al. 2021, arXiv:2103.10385", "docs/finetune/p_tuning.md"),
    Technique("ia3", "lm", "mygpt.lm.adapters.ia3:IA3", "Liu et al. 2022, arXiv:2205.05638", "docs/finetune/ia3.md"),
    Technique(
        "bottleneck", "lm", "mygpt.lm.adapters.bottleneck:Bottleneck", "Houlsby et al. 2019, arXiv:1902.00751", "docs/finetune/bottleneck.md"
    ),
    Technique("merge", "finetune", "mygpt.finetune.merge:merge", "Hu et al. 2021, arXiv:2106.09685, section 4.1", "docs/finetune/merge.md"),
    Technique("quantized", "lm", "mygpt.lm.quantized:nf4_settings", "Dettmers et al. 2023, arXiv:2305.14314", "docs/lm/quantized.md"),
    Technique(
        "before_after",
        "evaluate",
        "mygpt.evaluate.before_after:before_after",
        "Koehn 2004, Statistical significance tests for machine translation evaluation (paired bootstrap)",
        "docs/evaluate/before_after.md",
    ),
    Technique("tasks", "evaluate", "mygpt.evaluate.tasks:read_task", "ours", "docs/evaluate/tasks.md"),
    Technique(
        "harness",
        "evaluate",
        "mygpt.evaluate.harness:run_task",
        "Gao et al. 2024, Language Model Evaluation Harness v0.4.13 (forms and scores)",
        "docs/evaluate/harness.md",
    ),
    Technique(
        "extraction",
        "evaluate",
        "mygpt.evaluate.extraction:Extraction",
        "Cobbe et al. 2021, arXiv:2110.14168 (strict); lm-eval's flexible reading beside it",
        "docs/evaluate/extraction.md",
    ),
    Technique("parity", "evaluate", "mygpt.evaluate.parity:TokenizerFacts", "ours", "docs/evaluate/parity.md"),
    Technique(
        "typos", "evaluate", "mygpt.evaluate.typos:typos", "Liang et al. 2022, arXiv:2211.09110, section 4.4", "docs/evaluate/typos.md"
    ),
    Technique(
        "scenarios", "evaluate", "mygpt.evaluate.scenarios:scenarios", "Liang et al. 2022, arXiv:2211.09110", "docs/evaluate/scenarios.md"
    ),
    Technique(
        "lm_eval_tasks",
        "evaluate",
        "mygpt.evaluate.lm_eval_tasks:lm_eval_task",
        "Gao et al. 2024, Language Model Evaluation Harness v0.4.13 (task files)",
        "docs/evaluate/lm_eval_tasks.md",
    ),
    Technique(
        "compare_models",
        "evaluate",
        "mygpt.evaluate.compare_models:compare_models",
        "Dietterich 1998, Approximate statistical tests for comparing supervised classification learning algorithms; Holm 1979",
        "docs/evaluate/compare_models.md",
    ),
    Technique(
        "gate",
        "evaluate",
        "mygpt.evaluate.gate:gate",
        "Schuirmann 1987, A comparison of the two one-sided tests procedure and the power approach; Holm 1979",
        "docs/evaluate/gate.md",
    ),
    Technique(
        "judge_report",
        "evaluate",
        "mygpt.evaluate.judge_report:judge_report",
        "Bradley and Terry 1952; Zheng et al. 2023, arXiv:2306.05685",
        "docs/evaluate/judge_report.md",
    ),
    Technique("cards", "evaluate", "mygpt.evaluate.cards:Card", "Mitchell et al. 2019, arXiv:1810.03993", "docs/evaluate/cards.md"),
    Technique(
        "rouge",
        "metrics",
        "mygpt.metrics.rouge:rouge_l",
        "Lin 2004, ROUGE: a package for automatic evaluation of summaries",
        "docs/evaluate/metrics/rouge.md",
    ),
    Technique(
        "bleu",
        "metrics",
        "mygpt.metrics.bleu:corpus_bleu",
        "Papineni et al. 2002, BLEU; Post 2018, arXiv:1804.08771 (signature)",
        "docs/evaluate/metrics/bleu_chrf.md",
    ),
    Technique(
        "chrf",
        "metrics",
        "mygpt.metrics.chrf:corpus_chrf",
        "Popovic 2015, chrF: character n-gram F-score",
        "docs/evaluate/metrics/bleu_chrf.md",
    ),
    Technique(
        "token_f1",
        "metrics",
        "mygpt.metrics.token_f1:token_f1",
        "Rajpurkar et al. 2016, arXiv:1606.05250",
        "docs/evaluate/metrics/answers.md",
    ),
    Technique(
        "macro_f1",
        "metrics",
        "mygpt.metrics.macro_f1:macro_f1",
        "Yang and Liu 1999, A re-examination of text categorization methods",
        "docs/evaluate/metrics/answers.md",
    ),
    Technique(
        "span_f1",
        "metrics",
        "mygpt.metrics.span_f1:span_f1",
        "Tjong Kim Sang and De Meulder 2003, arXiv:cs/0306050",
        "docs/evaluate/metrics/answers.md",
    ),
    Technique(
        "numeric_answer",
        "metrics",
        "mygpt.metrics.numeric_answer:numeric_match",
        "ours",
        "docs/evaluate/metrics/answers.md",
    ),
    Technique(
        "similarity",
        "metrics",
        "mygpt.metrics.similarity:embedding_similarity",
        "Reimers and Gurevych 2019, arXiv:1908.10084",
        "docs/evaluate/metrics/similarity.md",
    ),
    Technique(
        "entailment",
        "evaluate",
        "mygpt.evaluate.entailment:entailment",
        "Dagan et al. 2006, The PASCAL recognising textual entailment challenge; Bowman et al. 2015, arXiv:1508.05326",
        "docs/evaluate/entailment.md",
    ),
    Technique(
        "perplexity",
        "metrics",
        "mygpt.metrics.perplexity:token_perplexity",
        "Jelinek et al. 1977, Perplexity: a measure of the difficulty of speech recognition tasks",
        "docs/evaluate/metrics/likelihood.md",
    ),
    Technique(
        "multiple_choice",
        "metrics",
        "mygpt.metrics.multiple_choice:score_choices",
        "Brown et al. 2020, arXiv:2005.14165, section 2.4 (options by likelihood, normalised)",
        "docs/evaluate/metrics/likelihood.md",
    ),
    Technique(
        "pass_at_k",
        "metrics",
        "mygpt.metrics.pass_at_k:pass_at_k",
        "Chen et al. 2021, arXiv:2107.03374, equation 1",
        "docs/evaluate/metrics/pass_at_k.md",
    ),
    Technique(
        "calibration",
        "metrics",
        "mygpt.metrics.calibration:expected_calibration_error",
        "Guo et al. 2017, arXiv:1706.04599",
        "docs/evaluate/metrics/calibration.md",
    ),
    Technique(
        "agreement",
        "metrics",
        "mygpt.metrics.agreement:krippendorff_alpha",
        "Krippendorff 2011, Computing Krippendorff's alpha-reliability",
        "docs/evaluate/metrics/agreement.md",
    ),
    Technique(
        "ranking",
        "metrics",
        "mygpt.metrics.ranking:ndcg_at_k",
        "Jarvelin and Kekalainen 2002, Cumulated gain-based evaluation of IR techniques",
        "docs/evaluate/metrics/ranking.md",
    ),
    Technique(
        "roc_auc",
        "metrics",
        "mygpt.metrics.roc_auc:roc_auc",
        "Mann and Whitney 1947; DeLong, DeLong and Clarke-Pearson 1988 (interval)",
        "docs/evaluate/metrics/ranking.md",
    ),
    Technique(
        "jaccard",
        "metrics",
        "mygpt.metrics.jaccard:token_jaccard",
        "Jaccard 1912, The distribution of the flora in the alpine zone",
        "docs/evaluate/metrics/rouge.md",
    ),
    Technique(
        "bradley_terry",
        "metrics",
        "mygpt.metrics.bradley_terry:bradley_terry",
        "Bradley and Terry 1952, Rank analysis of incomplete block designs",
        "docs/evaluate/metrics/ratings.md",
    ),
    Technique(
        "elo",
        "metrics",
        "mygpt.metrics.elo:elo",
        "Elo 1978, The rating of chessplayers, past and present",
        "docs/evaluate/metrics/ratings.md",
    ),
    Technique(
        "sycophancy",
        "evaluate",
        "mygpt.evaluate.sycophancy:sycophancy",
        "Sharma et al. 2023, arXiv:2310.13548 (the neutral re-ask as control is ours)",
        "docs/evaluate/sycophancy.md",
    ),
    Technique(
        "refusal",
        "evaluate",
        "mygpt.evaluate.refusal:refusal",
        "Röttger et al. 2024, arXiv:2308.01263 (XSTest)",
        "docs/evaluate/refusal.md",
    ),
    Technique(
        "groundedness",
        "evaluate",
        "mygpt.evaluate.groundedness:groundedness",
        "Es et al. 2023, arXiv:2309.15217 (RAGAS)",
        "docs/evaluate/groundedness.md",
    ),
    Technique(
        "disinformation",
        "evaluate",
        "mygpt.evaluate.disinformation:disinformation",
        "Liang et al. 2022, arXiv:2211.09110 (HELM), section 4.8",
        "docs/evaluate/disinformation.md",
    ),
    Technique(
        "effective_context",
        "evaluate",
        "mygpt.evaluate.effective_context:effective_context",
        "Hsieh et al. 2024, arXiv:2404.06654 (RULER)",
        "docs/evaluate/effective_context.md",
    ),
    Technique(
        "forgetting",
        "evaluate",
        "mygpt.evaluate.forgetting:task_forgetting",
        "Chaudhry et al. 2018, arXiv:1801.10112; Lopez-Paz and Ranzato 2017, arXiv:1706.08840",
        "docs/evaluate/forgetting.md",
    ),
    Technique(
        "continual",
        "metrics",
        "mygpt.metrics.continual:backward_transfer",
        "Lopez-Paz and Ranzato 2017, arXiv:1706.08840; Chaudhry et al. 2018, arXiv:1801.10112",
        "docs/evaluate/forgetting.md",
    ),
    Technique(
        "divergence",
        "evaluate",
        "mygpt.evaluate.divergence:divergence",
        "Ouyang et al. 2022, arXiv:2203.02155, equation 2 (KL to the model before tuning)",
        "docs/evaluate/divergence.md",
    ),
    Technique(
        "bootstrap",
        "metrics",
        "mygpt.metrics.bootstrap:paired_bootstrap",
        "Efron 1987, Better bootstrap confidence intervals; Hesterberg 2015, arXiv:1411.5279",
        "docs/evaluate/statistics.md",
    ),
    Technique(
        "wilson",
        "metrics",
        "mygpt.metrics.wilson:wilson",
        "Wilson 1927, Probable inference, the law of succession, and statistical inference",
        "docs/evaluate/statistics.md",
    ),
    Technique(
        "t_interval",
        "metrics",
        "mygpt.metrics.t_interval:t_interval",
        "Student 1908, The probable error of a mean",
        "docs/evaluate/statistics.md",
    ),
    Technique(
        "mcnemar",
        "metrics",
        "mygpt.metrics.mcnemar:mcnemar_exact",
        "McNemar 1947, Note on the sampling error of the difference between correlated proportions",
        "docs/evaluate/statistics.md",
    ),
    Technique(
        "randomisation",
        "metrics",
        "mygpt.metrics.randomisation:approximate_randomisation",
        "Noreen 1989, Computer-intensive methods for testing hypotheses",
        "docs/evaluate/statistics.md",
    ),
    Technique(
        "holm",
        "metrics",
        "mygpt.metrics.holm:holm",
        "Holm 1979, A simple sequentially rejective multiple test procedure",
        "docs/evaluate/statistics.md",
    ),
    Technique(
        "non_inferiority",
        "metrics",
        "mygpt.metrics.non_inferiority:non_inferiority",
        "Schuirmann 1987, A comparison of the two one-sided tests procedure and the power approach",
        "docs/evaluate/statistics.md",
    ),
    Technique(
        "power",
        "metrics",
        "mygpt.metrics.power:items_needed",
        "Card et al. 2020, arXiv:2010.06595, With little power comes great responsibility",
        "docs/evaluate/statistics.md",
    ),
    Technique(
        "length_controlled",
        "metrics",
        "mygpt.metrics.length_controlled:length_controlled_win_rate",
        "Dubois et al. 2024, arXiv:2404.04475",
        "docs/evaluate/judged.md",
    ),
    Technique(
        "style_controlled",
        "metrics",
        "mygpt.metrics.style_controlled:style_controlled",
        "LMSYS 2024, Does style matter? Disentangling style and substance in Chatbot Arena",
        "docs/evaluate/metrics/ratings.md",
    ),
    Technique(
        "prediction_powered",
        "metrics",
        "mygpt.metrics.prediction_powered:prediction_powered_mean",
        "Angelopoulos et al. 2023, arXiv:2301.09633",
        "docs/evaluate/judged.md",
    ),
    Technique(
        "judge_pairs",
        "evaluate",
        "mygpt.evaluate.judged:judge_pairs",
        "Zheng et al. 2023, arXiv:2306.05685; length control: Dubois et al. 2024, arXiv:2404.04475",
        "docs/evaluate/judged.md",
    ),
    Technique(
        "graded_pairs",
        "evaluate",
        "mygpt.evaluate.graded_pairs:graded_pairs",
        "Zheng et al. 2023, arXiv:2306.05685, single-answer grading",
        "docs/evaluate/graded_pairs.md",
    ),
    Technique(
        "index",
        "rag",
        "mygpt.rag.index:build_index",
        "Cormack et al. 2009, Reciprocal rank fusion outperforms Condorcet (k = 60)",
        "docs/rag/index.md",
    ),
    Technique(
        "answer",
        "rag",
        "mygpt.rag.answer:RetrievalCompleter",
        "Lewis et al. 2020, arXiv:2005.11401; citations matched after generation: Gao et al. 2022, arXiv:2210.08726",
        "docs/rag/answer.md",
    ),
    Technique(
        "toxic_continuations",
        "evaluate",
        "mygpt.evaluate.toxic_continuations:toxic_continuations",
        "Gehman et al. 2020, arXiv:2009.11462",
        "docs/evaluate/toxic_continuations.md",
    ),
    Technique(
        "memorisation",
        "evaluate",
        "mygpt.evaluate.memorisation:memorisation",
        "Carlini et al. 2023, arXiv:2202.07646",
        "docs/evaluate/memorisation.md",
    ),
    Technique(
        "canary_exposure",
        "evaluate",
        "mygpt.evaluate.canary_exposure:canary_exposure",
        "Carlini et al. 2019, arXiv:1802.08232, section 4",
        "docs/evaluate/canary_exposure.md",
    ),
    Technique(
        "contamination",
        "evaluate",
        "mygpt.evaluate.contamination:contamination",
        "Brown et al. 2020, arXiv:2005.14165, appendix C",
        "docs/evaluate/contamination.md",
    ),
    Technique("toxicity", "guard", "mygpt.guard.toxicity:Toxicity", "Davidson et al. 2017, arXiv:1703.04009", "docs/guard/toxicity.md"),
    Technique("sandbox", "guard", "mygpt.guard.sandbox:Sandbox", "ours (namespaces(7), landlock(7), seccomp(2))", "docs/guard/sandbox.md"),
    Technique("unit_tests", "guard", "mygpt.guard.unit_tests:passes", "Chen et al. 2021, arXiv:2107.03374", "docs/guard/unit_tests.md"),
    Technique("pal", "prompt", "mygpt.prompt.pal:pal", "Gao et al. 2022, arXiv:2211.10435", "docs/prompt/pal.md"),
    Technique(
        "unit_test_reward",
        "align",
        "mygpt.align.unit_test_reward:UnitTestReward",
        "Le et al. 2022, arXiv:2207.01780, equation 3",
        "docs/align/unit_test_reward.md",
    ),
    Technique(
        "character_overlap",
        "guard",
        "mygpt.guard.character_overlap:CharacterIndex",
        "McCoy et al. 2021, arXiv:2111.09509, here of characters",
        "docs/guard/character_overlap.md",
    ),
    Technique("overlap", "guard", "mygpt.guard.overlap:NgramIndex", "Brown et al. 2020, arXiv:2005.14165", "docs/guard/overlap.md"),
    Technique("probe", "training", "mygpt.training.probe:fit_probe", "Alain and Bengio 2016, arXiv:1610.01644", "docs/training/probe.md"),
    Technique("api", "serve", "mygpt.serve.api:create_app", "ours", "docs/serve/api.md"),
    Technique(
        "judge",
        "infer",
        "mygpt.infer.judge:ModelJudge",
        "Liu et al. 2023, arXiv:2303.16634 (expectation over the scale); both orders: Zheng et al. 2023, arXiv:2306.05685",
        "docs/infer/judge.md",
    ),
    Technique("annotate", "studio", "mygpt.studio.annotate:create_app", "ours", "docs/studio/annotate.md"),
    Technique("up", "pipelines", "mygpt.pipelines.up:up", "ours", "docs/pipelines/up.md"),
    Technique("race", "pipelines", "mygpt.pipelines.race:race", "ours", "docs/pipelines/race.md"),
    Technique("sources", "lm", "mygpt.lm.sources:obtain", "ours", "docs/lm/sources.md"),
    Technique("chat", "lm", "mygpt.lm.chat:ChatRenderer", "ours", "docs/lm/chat.md"),
)


def where(name: str) -> Technique:
    """The row of one technique. Raises UsageError with the nearest names."""
    rows = {technique.name: technique for technique in TECHNIQUES}
    if name in rows:
        return rows[name]
    nearest = difflib.get_close_matches(name.lower(), rows, n=3)
    fix = f"Did you mean {', '.join(f'`{n}`' for n in nearest)}?" if nearest else f"Known: {', '.join(rows)}."
    raise UsageError(f"There is no technique `{name}`.", fix=fix)
