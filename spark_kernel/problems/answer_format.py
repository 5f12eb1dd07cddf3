r"""The sentence by which a data set says how to write the answer, set apart from the problem itself.

Published rows often end (or begin) in one: "Please reason step by step, and put your final answer within \boxed{}.",
"Answer with the option's letter from the given choices directly." It belongs to the prompt that the data set was made
for, not to the problem: our own prompts say where the answer goes, and a judge is shown the problem alone. Only whole
sentences of the kinds below are taken off, from the ends, and never the whole text. A sentence that says what form the
answer has ("as a common fraction", "rounded to two places") is part of the problem and stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

QUOTES = "[\"'`“”‘’$]*"
BOX = rf"{QUOTES}\\*boxed(?:\s*\{{[^{{}}]{{0,24}}\}})?{QUOTES}"
PLACE = rf"(?:{BOX}|{QUOTES}<answer>.{{0,24}}?</answer>{QUOTES})(?:\s+(?:command|environment|format|notation|tags?))?"
ANSWER = (
    r"(?:(?:only|just)\s+)?(?:(?:the|your|its|this)\s+)?(?:(?:final|correct|numerical|numeric)\s+)?"
    r"(?:answer|result|solution|choice|answers)(?:\s+(?:only|to the (?:question|problem)))?"
)
POLITE = (
    r"(?:(?:please|then|and|also|finally,?|make sure(?: to| that you)?|be sure to|remember to|don't forget to|"
    r"you (?:must|should|need to))\s+)*"
)
VERB = (
    r"(?:put|write|give|output|present|enclose|place|state|return|provide|repeat|express|box|report|show|wrap|include|"
    r"mark|display|submit|conclude(?: with)?|end with)"
)
INTO = r"(?:in|within|inside|into|using|with|by using|between|enclosed (?:in|within)|at the end (?:in|within))"

IN_A_BOX = rf"{POLITE}{VERB}\s+{ANSWER}\s+{INTO}\s+(?:(?:a|an|the)\s+)?(?:latex\s+)?{PLACE}"
MUST_BE = rf"{ANSWER}\s+(?:must|should|has to) be\s+(?:put|written|enclosed|given|placed|boxed)\s+{INTO}\s+{PLACE}"
THINK = (
    r"(?:please\s+)?(?:(?:let's\s+)?think|reason|(?:work|solve) (?:it|this|the problem)|(?:first\s+)?conduct reasoning)"
    r"(?:\s+step[ -]by[ -]step)?"
)

LAST_LINE = (
    r"(?:the last line of your response should be (?:of|in) the (?:form|format|following format):?\s*"
    rf"{QUOTES}answer:\s*{QUOTES}\$?\\?(?:answer|boxed\{{\$?answer\$?\}}){QUOTES}\s*(?:\(without quotes\))?\s*"
    r"where \$?answer is the answer to the problem)"
)
OWN_LINE = (
    rf"(?:please\s+)?remember to put your answer on its own line after {QUOTES}answer:{QUOTES}"
    rf"(?:,? and you do not need to use a \\*boxed command)?"
)
AFTER_MARK = rf"{POLITE}{VERB}\s+{ANSWER}\s+after\s+{QUOTES}####{QUOTES}"
MONOLOGUE = (
    r"you first think about the reasoning process (?:as|in) (?:an|your) internal (?:monologue|mind) and then provide "
    r"(?:the user with )?(?:the )?(?:final )?answer"
)
TAGS = (
    r"(?:the reasoning process must be|the reasoning process and answer are) enclosed within "
    r"\\?<think>\s*\\?</think>(?:\s*and\s*\\?<answer>\s*\\?</answer>)? tags(?:, respectively)?"
)
LETTER = (
    r"(?:please\s+)?(?:answer|respond|reply) (?:with|by giving|using) (?:only )?(?:the )?(?:option['’]?s? letter|"
    r"letter of (?:the|your) (?:correct )?(?:option|choice|answer))(?: from the given (?:choices|options))?"
    r"(?: directly| only)?"
)
SELECT = r"(?:please\s+)?select the correct (?:answer|option) from the (?:options|choices) (?:above|below)"
WORD = r"(?:please\s+)?answer the question using a single word or phrase"

USE_BOX = rf"{POLITE}use\s+{PLACE}(?:\s+(?:for|to (?:give|mark|enclose|write))\s+{ANSWER})?"
LATEX = rf"{POLITE}present\s+{ANSWER}\s+in latex format:\s*{PLACE}"
HOPE = (
    r"the last line of your response should be of the following format:\s*['\"]?therefore, the final answer is:\s*"
    rf"{PLACE}\.? i hope it is correct['\"]?\s*(?:\(without quotes\))?\s*where answer is just the final number or "
    r"expression that solves the problem"
)

SENTENCES = (
    rf"(?:{THINK},?\s*(?:and|then|and then)\s+)?(?:{IN_A_BOX}|{AFTER_MARK})",
    MUST_BE,
    OWN_LINE,
    LAST_LINE,
    rf"{THINK},?\s*and then answer the question",
    MONOLOGUE,
    TAGS,
    LETTER,
    SELECT,
    WORD,
    USE_BOX,
    LATEX,
    HOPE,
)
BARE = (
    THINK,
    r"think step by step before answering",
    r"solve the following (?:math(?:ematics|ematical)? )?problem(?: step by step| efficiently and clearly)?",
)
"""Sentences that go only together with one of the others: alone they may be the problem's own words."""

ANY = "|".join(f"(?:{sentence})" for sentence in (*SENTENCES, *BARE))
KNOWN = "|".join(f"(?:{sentence})" for sentence in SENTENCES)
EDGE = r"[.!:]*[\"'”’]*"
FLAGS = re.IGNORECASE | re.DOTALL
ONE = re.compile(rf"(?:{ANY})\s*{EDGE}", FLAGS)
TELLING = re.compile(rf"(?:{KNOWN})\s*{EDGE}", FLAGS)
START = re.compile(r"(?<=[.!?:\"”'’}])\s+|\n+|\s+(?=[A-Z])|\s+(?=and\s)")
"""Where a sentence may begin: after another one, on a new line, or where the question lacks its full stop."""
HINT = re.compile(r"boxed|####|answer:|answer>|final answer|letter|single word|select the", re.IGNORECASE)
"""What at least one of the sentences says: most questions are done with this look."""
LONGEST = 600
"""Characters at either end of a question in which answer-format sentences are looked for."""


@dataclass(frozen=True, slots=True)
class SetApart:
    """A question without its answer-format sentences, and these; `removed` is "" where there are none."""

    question: str
    removed: str


def set_apart(question: str) -> SetApart:
    """Take known answer-format sentences off both ends of a question.

    Nothing is taken where nothing would be left. The rest is as it was, white space at the cuts taken off.
    """
    end = _cut_back(question)
    start = _cut_front(question[:end])
    if (start == 0 and end == len(question)) or not question[start:end].strip():
        return SetApart(question, "")
    pieces = (question[:start].strip(), question[end:].strip())
    return SetApart(question[start:end].strip(), "\n".join(piece for piece in pieces if piece))


def _cut_back(question: str) -> int:
    """Where the answer-format sentences at the end begin; the question's length where there are none."""
    end = len(question.rstrip())
    told = False
    begin = max(0, end - LONGEST)
    if not HINT.search(question, begin):
        return len(question)
    places = [begin + match.end() for match in START.finditer(question[begin:end])]
    while True:
        for place in places:  # the longest first: a sentence is taken with its "Please" and "Let's think"
            sentence = question[place:end].strip()
            if place < end and sentence and ONE.fullmatch(sentence):
                told |= TELLING.fullmatch(sentence) is not None
                end = place
                break
        else:
            return end if told else len(question)


def _cut_front(question: str) -> int:
    """Where the problem begins after answer-format sentences at the front; 0 where there are none."""
    if not HINT.search(question, 0, LONGEST):
        return 0
    begin, told = 0, False
    places = [match.end() for match in START.finditer(question[:LONGEST])]
    while True:
        for place in reversed(places):
            sentence = question[begin:place].strip()
            if place > begin and sentence and ONE.fullmatch(sentence):
                told |= TELLING.fullmatch(sentence) is not None
                begin = place
                break
        else:
            return begin if told else 0
