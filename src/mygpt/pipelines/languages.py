"""Which languages a model and an embedder know, checked before any training."""

from collections import Counter

from mygpt.artifacts.corpus import Corpus
from mygpt.core.run import Run

# From the makers' model cards. A model that is not listed is not checked: its user knows it.
KNOWN = {"smollm2-135m": ("en",), "smollm2-135m-q4_1": ("en",), "minilm": ("en",)}


def languages_to_train(corpus: Corpus, *, model: str, embedder: str, force: bool, run: Run) -> tuple[str, ...] | None:
    """Languages to make questions in: () for all, None for no training at all (retrieval only). Says aloud what is unknown."""
    characters = Counter(corpus.characters_by_language)
    total = max(1, characters.total())
    for reader, role in ((model, "model"), (embedder, "embedder")):
        unknown = {language: n for language, n in characters.items() if language and language not in KNOWN.get(reader, (language,))}
        if unknown:
            named = ", ".join(f"{language} ({n / total:.0%})" for language, n in sorted(unknown.items(), key=lambda item: -item[1]))
            run.warn(f"The {role} {reader} does not know the language of some documents: {named} of the text.")
    known = KNOWN.get(model)
    if known is None or force:
        return ()
    foreign = sum(n for language, n in characters.items() if language and language not in known)
    if foreign > 0.5 * total:
        run.warn("Most of the text is in a language that the model does not know: index and chat only. `--force` trains anyway.")
        return None
    if foreign:
        run.note(f"Questions are made from the text in {', '.join(known)} only; `--force` takes all.")
    return known if foreign else ()
