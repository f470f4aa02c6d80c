"""The end of scripts/quickstart: what was recognised and read and whether it is right, a search, and what each step took.

usage: quickstart_report.py CTL RESULT ROOT, with CJM_DATA_DIR set; RESULT is what `cjm-ctl --json run` printed.

What not: deciding anything. The texts come from the run's own output and the store, the figures from the journal. Only
the nine recordings of alsa-utils and the page that was drawn are judged: the recordings' names say what is said in them,
scripts/page.txt what stands on the page, and no tool is told either.
Must hold: the exit code is 0 only if all eight voices were understood and the noise was not, at most 2 % of the page's
characters are wrong, all its sentences are right, and two tools used two versions of numpy.
"""

import json
import os
import shutil
import subprocess
import sys

NOISE = "Noise"
VOICES = [f"{a}_{b}" for a in ("Front", "Rear", "Side") for b in ("Left", "Right", "Center") if (a, b) != ("Side", "Center")]
QUERY = "rear"
CHARACTER_ERRORS_MAX = 0.02
# Lines are cut to the terminal; where there is none they may be this long.
COLUMNS = shutil.get_terminal_size((120, 24)).columns


def main(ctl, result_path, root):
    with open(result_path, encoding="utf-8") as file:
        text = file.read()
    result = json.loads(text) if text.strip() else {}
    output = result.get("output")
    if not isinstance(output, dict):
        failed(result)
        return 1
    right = recognised(output["recordings"])
    page = stored(ctl, output["pages"][0])
    page_right, page_summary = read(page, os.path.join(root, "scripts/page.txt"))
    searched(ctl)
    used(ctl, result.get("composition_id"))
    versions = numpy_versions([page, stored(ctl, output["recordings"][0])])
    next_steps(ctl, root, result)
    print()
    print(conclusion(right))
    print(page_summary)
    print(", ".join(f"{tool} used numpy {version}" for tool, version in sorted(versions.items())) + ".")
    return 0 if right == (len(VOICES), True) and page_right and len(set(versions.values())) == 2 else 1


def failed(result):
    """Says why there is nothing to show."""
    error = result.get("error") or {}
    lines = ["", f"The run failed: {error.get('message', 'the lines above say why')}"]
    lines += [f"  because {cause}" for cause in error.get("causes", ())]
    lines += [f"  | {line}" for line in error.get("stderr_tail", ())]
    if error.get("next_step"):
        lines.append(f"  next: {error['next_step']}")
    print("\n".join(lines), file=sys.stderr)


def recognised(documents):
    """Prints every recording with what was heard; returns how many voices are right, and whether the noise is."""
    heard, rows = {}, []
    for document in documents:
        name = os.path.splitext(os.path.basename(document["recording"]))[0]
        heard[name] = document
        shown = f"“{document['text']}”" if document["speech"] else "no speech"
        if name == NOISE:
            mark = "right" if not document["speech"] else "WRONG"
        elif name in VOICES:
            mark = "right" if document["text"] == expected(name) else f"WRONG, it is “{expected(name)}”"
        else:
            mark = ""
        rows.append((os.path.basename(document["recording"]), shown, mark, f"document {document['id']}"))
    title("What was recognised")
    table(("recording", "heard", "which is", "stored as"), rows)
    voices = sum(1 for name in VOICES if name in heard and heard[name]["text"] == expected(name))
    return voices, NOISE in heard and not heard[NOISE]["speech"]


def expected(name):
    return name.lower().replace("_", " ")


def stored(ctl, document):
    """All that the store knows of a document, its provenance included."""
    answer = ask(ctl, "call", "transcript-store", "--action", "get", f"id:={document['id']}")
    return answer.get("result", answer)


def read(page, known_path):
    """Prints the sentences of the page; returns whether it was read well, and a line that says so."""
    with open(known_path, encoding="utf-8") as file:
        known = [line for line in file.read().splitlines() if line]
    sentences = [segment["text"] for segment in page["segments"]]
    right = sum(1 for sentence, expected_one in zip(sentences, known) if sentence == expected_one)
    expected_text = " ".join(known)
    errors = distance(" ".join(page["text"].split()), expected_text)
    share = errors / len(expected_text)
    title(f"What was read on {os.path.basename(page['recording'])}, sentence by sentence")
    table(
        ("", "sentence", "which is"),
        [
            (str(number), shortened(sentence, COLUMNS - 20), "right" if known[number - 1 : number] == [sentence] else "WRONG")
            for number, sentence in enumerate(sentences, 1)
        ],
    )
    line = (
        f"{right} of {len(known)} sentences right, {errors} of {len(expected_text)} characters wrong "
        f"({100 * share:.2f} %)."
    )
    return share <= CHARACTER_ERRORS_MAX and sentences == known, line


def shortened(text, length):
    length = max(length, 30)
    return text if len(text) <= length else text[: length - 1] + "…"


def distance(one, other):
    """How many characters must be inserted, removed or replaced to make one text of the other (Levenshtein), a whole
    column at once: bit n of a number stands for row n of the table (Myers 1999, Hyyrö 2003)."""
    places, top, whole = {}, 1 << max(len(one) - 1, 0), (1 << len(one)) - 1
    for place, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << place
    if not one:
        return len(other)
    more, less, found = whole, 0, len(one)
    for character in other:
        same = places.get(character, 0)
        straight = (((same & more) + more) ^ more) | same | less
        up, down = less | ~(straight | more) & whole, more & straight
        found += bool(up & top) - bool(down & top)
        up, down = (up << 1 | 1) & whole, down << 1 & whole
        more, less = (down | ~(same | less | up)) & whole, up & (same | less)
    return found


def numpy_versions(documents):
    """Tool → the version of numpy that it worked with, from the provenance of stored documents."""
    steps = [step for document in documents for step in document["steps"]]
    return {step["capability"]: step["numpy"] for step in steps if "numpy" in step}


def searched(ctl):
    """Searches the store as a user would."""
    command = ["call", "transcript-store", "--action", "search", f"query={QUERY}"]
    title("A search over it: cjm-ctl " + " ".join(command))
    answer = ask(ctl, *command)
    hits = answer.get("result", answer)["hits"]
    rows = []
    for hit in hits:
        times = ", ".join(f"{time['start']:.2f}–{time['end']:.2f} s" for time in hit["times"])
        sentences = ", ".join(f"sentence {sentence['number']}" for sentence in hit["sentences"])
        text = " … ".join(sentence["text"] for sentence in hit["sentences"]) or hit["highlighted"]
        rows.append((shortened(text, COLUMNS - 44), os.path.basename(hit["recording"]), times or sentences))
    table(("text", "in", "where"), rows)


def used(ctl, composition):
    """What each step took, as the journal has it."""
    journal = ask(ctl, "logs", "--journal", "-n", "0")
    ends = [row for row in journal if row["event_type"] == "run_finished" and row["composition_id"] == composition]
    title("What each step took (from the journal)")
    if not ends:
        print("the journal has no end of this run")
        return
    rows = []
    for node in ends[-1]["payload"]["nodes"]:
        usage = node.get("usage") or {}
        rows.append(
            (
                node["name"],
                node["capability"],
                str(node["elements_completed"]),
                seconds(node["wall_seconds"]),
                seconds(usage.get("cpu_seconds")),
                megabytes(usage.get("peak_rss_mb")),
                ", ".join(map(str, node["pids"])),
            )
        )
    table(("step", "tool", "calls", "took", "CPU", "memory", "processes"), rows)


def conclusion(right):
    voices, noise = right
    noise_words = "the noise recognised as no speech" if noise else "the NOISE NOT recognised as no speech"
    return f"{voices} of {len(VOICES)} voices right, {noise_words}."


def next_steps(ctl, root, result):
    folder = os.path.dirname(ctl)
    title("Try next")
    composition = quoted(os.path.join(root, "compositions/recordings.yaml"))
    page = quoted(os.path.join(os.environ["CJM_DATA_DIR"], "page.png"))
    for comment, command in [
        ("once in this shell", f"export PATH={quoted(folder)}:$PATH CJM_DATA_DIR={quoted(os.environ['CJM_DATA_DIR'])}"),
        ("another search", "cjm-ctl call transcript-store --action search query='\"rear right\" OR center'"),
        ("where a text comes from", "cjm-ctl call transcript-store --action get id=1"),
        ("everything that happened in this run", f"cjm-ctl logs --journal -n 0 --run {result['run_id']}"),
        ("the page once more, its files into a folder of yours", f"cjm-ctl call ocr page=@{page} -o out"),
        ("recordings of your own, in which positions are called out", f"cjm-ctl run {composition} recordings=FOLDER"),
    ]:
        print(f"  # {comment}\n  {command}")


def quoted(text):
    import shlex

    return shlex.quote(text)


def ask(ctl, *arguments):
    """One command of cjm-ctl, its answer as JSON."""
    done = subprocess.run([ctl, "--json", "--quiet", *arguments], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def seconds(value):
    return "" if value is None else f"{value:.2f} s"


def megabytes(value):
    return "" if value is None else f"{value:.0f} MB"


def title(text):
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{text}{plain}")


def table(heads, rows):
    rows = [heads, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(error.cmd)} ended with exit code {error.returncode}", file=sys.stderr)
        sys.exit(1)
