"""RLAIF direct: a judge grades the policy's own answers while it learns, so that no reward model is trained. A reward.

    grade = sum(s * P(s)) over the scale 1 to 10         the judge's probabilities of each grade
    reward = (grade - 5.5) / 4.5                         from -1 to 1

    reward = DirectFeedback(ModelJudge(scorer=engine, wording=graded_by("is honest about what it does not know")))
    reward = constitutional_feedback(constitution, engine)       the mean over all principles of a constitution

Source: Lee et al. 2023, arXiv:2309.00267, section 2.2.2 (d-RLAIF).
We differ: several principles may be graded, each by itself, and their mean is the reward.
"""

from collections.abc import Sequence
from statistics import fmean

from mygpt.align.constitution import Constitution
from mygpt.align.requests import dialogue
from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import MygptError, UsageError
from mygpt.infer.judge import Judge, ModelJudge, Wording
from mygpt.infer.protocols import Answer, Identity, Scorer

SCALE = 10
_GRADES = tuple(f" {grade}" for grade in range(1, SCALE + 1))
_ASKED = """A reply to a request is graded by one rule, from 1 (breaks it) to {highest} (keeps it fully). Its length does not matter.

Rule: A good reply {criteria}.
Request: {prompt}
Reply: {answer}

Grade from 1 to {highest}:"""


def graded_by(criterion: str) -> Wording:
    """`criterion` completes "A good reply ..."."""
    return Wording(grade=_ASKED, criteria=criterion, digits=_GRADES)


def constitutional_feedback(constitution: Constitution, scorer: Scorer, principles: Sequence[str] = ()) -> "DirectFeedback":
    """`principles` by id; none named: all of them. Each costs ten scores of an answer, which share everything but their last token."""
    known = [one.id for one in constitution.principles]
    unknown = [name for name in principles if name not in known]
    if unknown:
        raise UsageError(f"The constitution `{constitution.id}` has no principle `{unknown[0]}`.", fix=f"There are: {', '.join(known)}.")
    chosen = [constitution.principle(name) for name in principles or known]
    return DirectFeedback(*(ModelJudge(scorer=scorer, wording=graded_by(one.better)) for one in chosen))


class DirectFeedback:
    """`judges` grade from 1 to `scale`; the reward is the mean of theirs."""

    def __init__(self, *judges: Judge, scale: int = SCALE):
        if not judges or scale < 2:
            fix = "Give one judge or more, and a scale to 2 or more."
            raise UsageError(f"{len(judges)} judges on a scale to {scale} give no reward.", fix=fix)
        self._judges, self._scale = judges, scale

    @property
    def identity(self) -> Identity:
        return {"reward": "direct_feedback", "judges": [judge.identity for judge in self._judges], "scale": self._scale}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        return self.each([prompt], [answer])[0]

    def each(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
        """Raises MygptError where a judge gives no grade."""
        asked, texts = [dialogue(prompt.prompt) for prompt in prompts], [answer.text for answer in answers]
        by_judge = [judge.grade(asked, texts) for judge in self._judges]
        rewards = []
        for number, grades in enumerate(zip(*by_judge, strict=True)):
            missing = next((grade for grade in grades if grade.value is None), None)
            if missing is not None:
                raise MygptError(
                    f"The judge gave no grade to the answer {texts[number][:80]!r}; it said {missing.reading.output[:80]!r}.",
                    fix="Take a judge with log-probabilities: a model on this machine, or a server that echoes them (mygpt, vLLM).",
                )
            rewards.append(fmean(self._normalised(grade.value) for grade in grades if grade.value is not None))
        return rewards

    def _normalised(self, grade: float) -> float:
        middle = (1 + self._scale) / 2
        return (grade - middle) / (self._scale - middle)
