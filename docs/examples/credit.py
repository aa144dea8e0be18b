#!/usr/bin/env python3
"""Invented credit applications with the facts they state, as chats to learn from and to be measured by.

    python3 docs/examples/credit.py 1000 > train.jsonl
    python3 docs/examples/credit.py 300 --new-wordings --seed 1 > test.jsonl

    python3 docs/examples/credit.py 300 --plain      # short texts in which every fact stands, in digits

Every line is one chat: an application as people write them, and its facts as JSON. Four fifths of the wordings of each fact
belong to the first form; texts of `--new-wordings` say every fact in one of the others, so that what is measured is reading and
not remembering. A fact that an application does not state is null. Nothing here is about anybody.
"""
import argparse
import json
import random
import sys

INCOME = [
    "I earn {} a month", "my monthly salary is {}", "I make {} monthly", "{} comes in every month", "my take-home pay is {} per month",
    "I bring home {} each month", "every month my employer pays me {}", "my wages come to {} a month", "I am paid {} monthly",
    "my job pays {} a month", "I get {} a month after tax", "our household lives on my {} a month", "my net income is {} per month",
    "I have a regular income of {} a month", "what I earn is {} every month",
]
DEBT = [
    "I owe {} on my cards", "my debts are {}", "there is {} outstanding on other loans", "I still have {} to pay off elsewhere",
    "I carry a balance of {}", "{} of an older loan is left", "my car loan has {} remaining", "I am {} in debt",
    "other banks are still waiting for {} from me", "what I owe elsewhere adds up to {}",
]
NO_DEBT = [
    "I have no debts", "I owe nothing", "I do not owe anybody anything", "all my old loans are paid back", "there are no other loans",
]
AMOUNT = [
    "I would like to borrow {}", "please lend me {}", "I need a loan of {}", "I am asking for {}", "could I get {}",
    "I want to take out {}", "the loan should be {}", "I hope for a credit of {}", "we are looking for {}", "my application is for {}",
]
MONTHS = [
    "over {} months", "to be paid back in {} months", "for {} months", "with {} monthly instalments", "and would return it within {} months",
]
PURPOSE = {
    "car": ["for a used car", "to replace my old car", "because I am buying a van", "so that I can get a vehicle", "for an electric car"],
    "home": ["to renovate the kitchen", "for a new roof", "to repair the house", "for the bathroom", "to insulate our house"],
    "education": ["to pay for my studies", "for tuition", "for my daughter's university", "for a training course", "to finish my degree"],
    "medical": ["for a dental treatment", "to pay a hospital bill", "for an operation", "for my physiotherapy", "to settle the doctor's invoice"],
}
BESIDE = [
    "I am {a} years old", "I have worked there for {y} years", "my rent is {r}", "I live in Bristol", "we have {c} children",
    "my account number ends in {n}", "I called you on the {d}th already", "my brother recommended you", "the branch in room {n} knows me",
    "I would prefer a letter",
]
GREETING = ["Hello, ", "Hi! ", "Good morning. ", "Dear team, ", "", "", ""]
ASK = "Facts as JSON: "


def plain(source):
    """A short text that states every fact but the purpose, in digits."""
    facts = dict(income=source.randrange(1_500, 30_000, 100), debt=source.choice([0, source.randrange(200, 20_000, 50)]))
    facts |= dict(amount=source.randrange(1_000, 300_000, 500), months=source.choice([12, 24, 36, 48, 60]))
    debt = source.choice(DEBT[:3]).format(facts["debt"]) if facts["debt"] else source.choice(NO_DEBT[:2])
    loan = source.choice(AMOUNT[:3]).format(facts["amount"]) + " " + source.choice(MONTHS[:2]).format(facts["months"])
    parts = [source.choice(INCOME[:4]).format(facts["income"]), debt, loan]
    source.shuffle(parts)
    return ". ".join(part[0].upper() + part[1:] for part in parts) + ".", facts


def money(source, value):
    """An amount as people write it; every form says the value exactly."""
    forms = [f"{value}", f"{value:,}", f"${value:,}", f"{value:,} dollars", f"{value} USD"]
    if value % 100 == 0:
        forms.append(f"{value / 1000:g}k")
    return source.choice(forms)


def wording(source, phrases, new):
    """One of the phrases to learn from, or of those kept for measuring."""
    kept = max(1, len(phrases) // 5)
    return source.choice(phrases[-kept:] if new else phrases[:-kept])


def application(source, new):
    income = source.randrange(1_500, 30_000, 100) if source.random() < 0.9 else None
    debt = source.choice([0, None] + [source.randrange(200, 20_000, 50)] * 3)
    amount = source.randrange(1_000, 300_000, 500)
    months = source.choice([6, 12, 18, 24, 30, 36, 48, 60, 72, 84]) if source.random() < 0.85 else None
    purpose = source.choice([*PURPOSE, None])
    loan = wording(source, AMOUNT, new).format(money(source, amount))
    if purpose:
        loan += " " + wording(source, PURPOSE[purpose], new)
    if months:
        loan += " " + wording(source, MONTHS, new).format(months)
    parts = [loan]
    if income is not None:
        parts.append(wording(source, INCOME, new).format(money(source, income)))
    if debt is not None:
        parts.append(wording(source, DEBT, new).format(money(source, debt)) if debt else wording(source, NO_DEBT, new))
    for phrase in source.sample(BESIDE, source.choice([0, 0, 1, 2])):
        numbers = dict(a=source.randrange(19, 80), y=source.randrange(2, 30), r=source.randrange(400, 2500, 10), c=source.randrange(2, 5))
        parts.append(phrase.format(**numbers, n=source.randrange(100, 999), d=source.randrange(4, 20)))
    source.shuffle(parts)
    text = source.choice(GREETING) + ". ".join(part[0].upper() + part[1:] for part in parts) + "."
    return text, dict(income=income, debt=debt, amount=amount, months=months, purpose=purpose)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("n", type=int, help="how many chats")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--plain", action="store_true", help="short texts in which every fact stands, in digits")
    options.add_argument("--new-wordings", action="store_true", help="phrases that no text without this option has")
    options = options.parse_args()
    source = random.Random(f"{options.seed} {options.new_wordings}")
    for _ in range(options.n):
        text, facts = plain(source) if options.plain else application(source, options.new_wordings)
        messages = [dict(role="user", content=ASK + text), dict(role="assistant", content=json.dumps(facts))]
        json.dump(dict(messages=messages), sys.stdout)
        print()


if __name__ == "__main__":
    main()
