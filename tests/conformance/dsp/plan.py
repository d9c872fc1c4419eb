"""The kit's test plan, from our side: what a person behind the connector does in each test.

Run as a program, it prints the ids as properties of the kit.
"""

from typing import NamedTuple

# Test, dataset or agreement, steps. `REQUESTED offer`: once the process comes to REQUESTED, offer. `then start`: once our
# own step before it is done. Every step is taken once, in this order; the kit does the rest.
PLAN = """
# we provide, the kit negotiates
CN:01-01    ACN0101   REQUESTED offer
CN:01-02    ACN0102   REQUESTED offer, REQUESTED terminate          # the second REQUESTED is a counter-offer
CN:01-03    ACN0103   REQUESTED offer, ACCEPTED agree, VERIFIED finalize
CN:01-04    ACN0104   REQUESTED agree, VERIFIED finalize
CN:02-01    ACN0201   REQUESTED terminate
CN:02-02    ACN0202
CN:02-03    ACN0203   REQUESTED agree
CN:02-04    ACN0204   REQUESTED offer
CN:02-05    ACN0205   REQUESTED offer, then terminate
CN:02-06    ACN0206   REQUESTED offer, ACCEPTED terminate
CN:02-07    ACN0207   REQUESTED agree, VERIFIED terminate
CN:03-01    ACN0301   REQUESTED agree, VERIFIED finalize            # the kit then tries: to terminate
CN:03-02    ACN0302   REQUESTED offer                               # to verify what is only offered
CN:03-03    ACN0303   REQUESTED offer                               # to verify what is only accepted
CN:03-04    ACN0304   REQUESTED offer                               # a second counter-offer

# we consume; our request goes out when the kit calls the webhook
CN_C:01-01  ACNC0101  OFFERED accept, AGREED verify
CN_C:01-02  ACNC0102  OFFERED request                               # a counter-offer
CN_C:01-03  ACNC0103  OFFERED terminate
CN_C:01-04  ACNC0104  AGREED verify
CN_C:02-01  ACNC0201
CN_C:02-02  ACNC0202  then terminate
CN_C:02-03  ACNC0203  AGREED terminate
CN_C:02-04  ACNC0204
CN_C:02-05  ACNC0205  OFFERED accept
CN_C:02-06  ACNC0206  AGREED verify
CN_C:03-01  ACNC0301                                                # to finalize what is only requested
CN_C:03-02  ACNC0302                                                # an agreement to what is only offered
CN_C:03-03  ACNC0303                                                # to finalize what is only offered
CN_C:03-04  ACNC0304  OFFERED accept                                # to finalize what is only accepted
CN_C:03-05  ACNC0305  OFFERED accept                                # an offer after it was accepted
CN_C:03-06  ACNC0306  OFFERED accept                                # to finalize what is only agreed

# we provide, the kit asks for the data of a finished agreement
TP:01-01    ATP0101   REQUESTED start, then terminate
TP:01-02    ATP0102   REQUESTED start, then complete
TP:01-03    ATP0103   REQUESTED start, then suspend, then terminate
TP:01-04    ATP0104   REQUESTED start, then suspend, then start, then complete
TP:01-05    ATP0105   REQUESTED terminate
TP:02-01    ATP0201   REQUESTED start
TP:02-02    ATP0202   REQUESTED start
TP:02-03    ATP0203   REQUESTED start
TP:02-04    ATP0204   REQUESTED start                               # disabled in the kit
TP:02-05    ATP0205
TP:03-01    ATP0301                                                 # to complete what is only requested
TP:03-02    ATP0302                                                 # to suspend what is only requested
TP:03-03    ATP0303   REQUESTED start                               # to complete what is suspended
TP:03-04    ATP0304   REQUESTED start                               # to start what is terminated
TP:03-05    ATP0305   REQUESTED start                               # to suspend what is terminated
TP:03-06    ATP0306   REQUESTED start                               # to complete what is terminated

# we consume, of a finished agreement; our request goes out when the kit calls the webhook
TP_C:01-01  ATPC0101
TP_C:01-02  ATPC0102
TP_C:01-03  ATPC0103
TP_C:01-04  ATPC0104
TP_C:01-05  ATPC0105
TP_C:02-01  ATPC0201  STARTED terminate
TP_C:02-02  ATPC0202  STARTED complete
TP_C:02-03  ATPC0203  STARTED suspend, then terminate
TP_C:02-04  ATPC0204  STARTED suspend, then start, then complete    # disabled in the kit
TP_C:02-05  ATPC0205  then terminate
TP_C:03-01  ATPC0301                                                # to complete what is only requested
TP_C:03-02  ATPC0302                                                # to suspend what is only requested
TP_C:03-03  ATPC0303                                                # to complete what is suspended
TP_C:03-04  ATPC0304                                                # to start what is terminated
TP_C:03-05  ATPC0305                                                # to suspend what is terminated
TP_C:03-06  ATPC0306                                                # to complete what is terminated

# nothing to do but answer
CAT:01-01   CAT0101
CAT:01-02   CAT0102
CAT:01-03   CAT0103                                                 # must not exist
MET:01-01   -
"""

# https://github.com/eclipse-dataspacetck/dsp-tck/pull/174: who may resume is open in the specification.
DISABLED = {"TP:02-04", "TP_C:02-04"}
ABSENT = {"CAT0103"}
FORMAT = "HttpData-PULL"


class Step(NamedTuple):
    state: str
    """The state in which the step is due."""
    action: str
    after_own: bool
    """Whether we ourselves brought the process to that state."""


class Test(NamedTuple):
    name: str
    id: str
    """Of a dataset (CN, CAT) or an agreement (TP)."""
    steps: list[Step]


def tests() -> list[Test]:
    rows = (line.partition("#")[0].split(None, 2) for line in PLAN.splitlines())
    return [Test(row[0], row[1], steps(row[2] if len(row) > 2 else "")) for row in rows if row]


def steps(text: str) -> list[Step]:
    leads_to = {"offer": "OFFERED", "start": "STARTED", "suspend": "SUSPENDED"}
    found, reached = [], "REQUESTED"
    for when, action in (step.split() for step in text.split(",") if step.strip()):
        own = when == "then"
        found.append(Step(reached if own else when, action, own))
        reached = leads_to.get(action, "")
    return found


def expected() -> list[str]:
    """The tests that a conforming connector passes."""
    return [test.name for test in tests() if test.name not in DISABLED]


def datasets() -> list[str]:
    """What the connector has to offer."""
    return [test.id for test in tests() if test.name.startswith(("CN:", "CAT:")) and test.id not in ABSENT]


def agreements() -> dict[str, str]:
    """Finished agreements that the connector has to know, and the side it has in each."""
    sides = {"TP": "provider", "TP_C": "consumer"}
    return {test.id: sides[group] for test in tests() if (group := test.name.partition(":")[0]) in sides}


def offer(dataset: str) -> str:
    """The id that the kit asks for; in CN:01-02 it is written into the kit."""
    return f"CD123:{dataset}:456"


def properties() -> str:
    lines = []
    for test in tests():
        key = test.name.replace(":", "_").replace("-", "_")
        if key.startswith("TP"):
            lines += [f"{key}_AGREEMENTID={test.id}", f"{key}_FORMAT={FORMAT}"]
        elif test.id != "-":
            lines.append(f"{key}_DATASETID={test.id}")
        if key.startswith("CN_") and not key.startswith("CN_C"):
            lines.append(f"{key}_OFFERID={offer(test.id)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(properties(), end="")
