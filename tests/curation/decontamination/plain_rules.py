"""The published contamination rules as slow, obvious loops: the oracle of the fast ones. Nothing of siftune is used.

Rows are (prompt, answer), items (benchmark, prompt, answer). Every function gives {(row, item): score}, the score the
greatest over the parts of the row and the texts of the item.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

Row = tuple[str, str]
Item = tuple[str, str, str]
Words = list[str]
Matches = dict[tuple[int, int], float]


def words(text: str) -> Words:
    return re.findall(r"\w+", text.lower())


def texts(item: Item) -> list[str]:
    """The prompt, and an answer of 13 words or more."""
    return [item[1], item[2] if len(words(item[2])) >= 13 else ""]


def grams(tokens: Words, size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]


def covered(item: Words, shared: Iterable[tuple[str, ...]], size: int) -> set[int]:
    """The positions of the item's words that lie in a shared n-gram."""
    known = set(shared)
    inside = [start for start, gram in enumerate(grams(item, size)) if gram in known]
    return {position for start in inside for position in range(start, start + size)}


def best(scores: Iterable[tuple[int, int, float]]) -> Matches:
    matches: Matches = {}
    for row, item, score in scores:
        matches[row, item] = max(score, matches.get((row, item), 0.0))
    return matches


def gpt3(rows: list[Row], items: list[Item]) -> Matches:
    def split(text: str) -> Words:
        return text.lower().translate(str.maketrans("", "", string.punctuation)).split()

    def gram_size(benchmark: str) -> int:
        lengths = sorted(len(split(item[1])) for item in items if item[0] == benchmark)
        return min(13, max(8, lengths[math.ceil(0.05 * len(lengths)) - 1]))

    def collisions() -> Iterable[tuple[int, int, float]]:
        for number, item in enumerate(items):
            size = gram_size(item[0])
            documents = [{gram for part in row for gram in grams(split(part), size)} for row in rows]
            frequency = Counter(gram for document in documents for gram in document)
            for text in map(split, texts(item)):
                if len(text) < 8:
                    continue
                for position, row in enumerate(rows):
                    for part in row:
                        shared = {g for g in grams(split(part), size) if frequency[g] <= 10} & set(grams(text, size))
                        if shared:
                            yield position, number, len(covered(text, shared, size)) / len(text)

    return best(collisions())


def of_contaminated_texts(
    rows: list[Row], items: list[Item], share: Callable[[Words, set], float], least: Callable
) -> Matches:
    """Rows that share an 8-gram with a text of at least `least(benchmark)`, by its share over all rows' 8-grams."""
    everything = {gram for row in rows for part in row for gram in grams(words(part), 8)}

    def sharing() -> Iterable[tuple[int, int, float]]:
        for number, item in enumerate(items):
            for text in map(words, texts(item)):
                if text and share(text, everything) >= least(item[0]):
                    for position, row in enumerate(rows):
                        if any(set(grams(words(part), 8)) & set(grams(text, 8)) for part in row):
                            yield position, number, share(text, everything)

    return best(sharing())


def palm(rows: list[Row], items: list[Item]) -> Matches:
    def share(text: Words, everything: set) -> float:
        own = grams(text, 8)
        return sum(gram in everything for gram in own) / len(own) if own else 0.0

    return of_contaminated_texts(rows, items, share, lambda _: 0.7)


def llama3(rows: list[Row], items: list[Item], ratios: dict[str, float]) -> Matches:
    def share(text: Words, everything: set) -> float:
        return len(covered(text, everything, 8)) / len(text)

    return of_contaminated_texts(rows, items, share, lambda benchmark: ratios.get(benchmark, 0.8))


def tulu3(rows: list[Row], items: list[Item]) -> Matches:
    def overlaps() -> Iterable[tuple[int, int, float]]:
        for number, (_, prompt, _) in enumerate(items):
            test = words(prompt)
            for position, (row_prompt, _) in enumerate(rows):
                matching = len(covered(test, grams(words(row_prompt), 8), 8))
                if test and matching / len(test) > 0.5:
                    yield position, number, matching / len(test)

    return best(overlaps())


def skipgram(a: Words, b: Words) -> int:
    """The length of the longest span at the beginning of both that differs in at most 4 places, 0 if not over 10."""
    longest = 0
    for length in range(11, min(len(a), len(b)) + 1):
        differing = [step for step in range(length) if a[step] != b[step]]
        if len(differing) <= 4 and all(10 <= step < length - 1 for step in differing):
            longest = length
    return longest


def llama2(rows: list[Row], items: list[Item]) -> Matches:
    def dirty() -> Iterable[tuple[int, int, float]]:
        for number, item in enumerate(items):
            for text in map(words, texts(item)):
                contaminated: set[int] = set()
                sharing = set()
                for position, row in enumerate(rows):
                    for part in map(words, row):
                        for i in range(len(part)):
                            for j in range(len(text)):
                                length = skipgram(part[i:], text[j:])
                                if length:
                                    sharing.add(position)
                                    equal = (step for step in range(length) if part[i + step] == text[j + step])
                                    contaminated.update(j + step for step in equal)
                if text and len(contaminated) / len(text) >= 0.8:
                    yield from ((position, number, len(contaminated) / len(text)) for position in sharing)

    return best(dirty())


def subsequence(a: Words, b: Words) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def qwen2(rows: list[Row], items: list[Item]) -> Matches:
    def removed() -> Iterable[tuple[int, int, float]]:
        for position, row in enumerate(rows):
            for part in map(words, row):
                for number, item in enumerate(items):
                    for text in map(words, texts(item)):
                        shorter = min(len(part), len(text))
                        length = subsequence(part, text)
                        if length >= 13 and 10 * length >= 6 * shorter:
                            yield position, number, length / shorter

    return best(removed())


def decon(rows: list[Row], items: list[Item]) -> Matches:
    questions, answers = [words(item[1]) for item in items], [words(item[2]) for item in items]
    indexed = [len(q + a) >= 20 and len(set(q + a)) >= 4 and bool(q) for q, a in zip(questions, answers, strict=True)]

    def question_grams(number: int) -> set[tuple[str, ...]]:
        question = questions[number]
        return set(grams(question, min(5, len(question)))) if indexed[number] else set()

    def answer_grams(number: int) -> set[tuple[str, ...]]:
        return set(grams(answers[number], 3)) if indexed[number] and len(answers[number]) > 3 else set()

    def idf(of: Callable[[int], set], gram: tuple[str, ...]) -> float:
        return math.log(sum(indexed) / sum(gram in of(number) for number in range(len(items))))

    def weight(of: Callable[[int], set], chosen: set) -> float:
        return sum(idf(of, gram) for gram in chosen)

    def required(length: int, threshold: float) -> float:
        if length <= 20:
            return 1.0
        return threshold if length >= 50 else 1 - (1 - threshold) * (length - 20) / 30

    def answer_overlap(number: int, row: Words, start: int) -> float:
        answer = answers[number]
        if len(answer) <= 3:
            return float(any(row[first : first + len(answer)] == answer for first in range(start, start + 50)))
        total = weight(answer_grams, answer_grams(number))
        window = row[start : start + max(100, 2 * len(answer))]
        return weight(answer_grams, answer_grams(number) & set(grams(window, 3))) / total if total > 0 else 0.0

    def contaminated() -> Iterable[tuple[int, int, float]]:
        for position, (prompt, answer) in enumerate(rows):
            row = words(prompt) + words(answer)
            for number in range(len(items)) if len(row) >= 10 else ():
                own = question_grams(number)
                size = min(5, len(questions[number]))
                hits = [start for start, gram in enumerate(grams(row, size)) if gram in own] if own else []
                clusters: list[list[int]] = []
                for start in hits:
                    if clusters and start - clusters[-1][-1] - 1 < 11:
                        clusters[-1].append(start)
                    else:
                        clusters.append([start])
                total = weight(question_grams, own)
                for cluster in clusters:
                    matched = {tuple(row[start : start + size]) for start in cluster}
                    overlap = weight(question_grams, matched) / total if total > 0 else 0.0
                    if overlap < required(len(questions[number]), 0.5 / 0.7) - 1e-9:
                        continue
                    score = overlap
                    if answers[number]:
                        excess = max(0, cluster[-1] + size - cluster[0] - len(questions[number]))
                        confidence = min(1.0, 0.5 + 0.5 * len(own) / 20)
                        score = 0.75 * confidence * overlap
                        found = answer_overlap(number, row, cluster[-1] + size - excess)
                        score += (1 - 0.75 * confidence) * found
                    if score >= required(len(questions[number]) + len(set(answers[number])), 0.8) - 1e-9:
                        yield position, number, min(score, 1.0)

    return best(contaminated())
