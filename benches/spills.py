#!/usr/bin/env python3
"""Looks for hot loops of kernels that spill vectors, and for kernels that can panic, in a program's machine code.

A hot loop is an innermost one among those with dot products. It spills what it stores to the stack; what it only reads there
are constants, which take no more time than others in memory. Needs objdump and nm, and a program with its symbols:
`cargo build --release && benches/spills.py target/release/qexact`. Exit code 1 if there are any but those known.
"""

import argparse
import collections
import re
import subprocess
import sys

KERNEL = re.compile(r"^[0-9a-f]+ <(?:<?qexact_kernels::x86_64::)([\w:<>{}# ]+?)(?:::h[0-9a-f]{16})?>:$")
DOT_PRODUCT = re.compile(r"\s(vpdpbusd|vpdpwssd|vpmaddwd|vpmaddubsw|vpopcntd|vpaddb)\s")
TO_STACK = re.compile(r"%[xyz]mm\d+,[^,]*\(%rsp")
FROM_STACK = re.compile(r"\(%rsp.*%[xyz]mm")
PANIC = re.compile(r"panic|_fail")
# kernels/PERFORMANCE.md says why.
KNOWN = {"maddubs::gemm"}
ADDRESS = re.compile(r"^\s*([0-9a-f]+):")
JUMP = re.compile(r"\sj\w+\s+([0-9a-f]+)\s")
# Rust's other crates are called through a table, whose entries are filled in when the program is loaded.
THROUGH_TABLE = re.compile(r"\scall\s+\*.*# ([0-9a-f]+) <")
RELOCATION = re.compile(r"^([0-9a-f]+) R_X86_64_RELATIVE\s+\*ABS\*\+0x([0-9a-f]+)$")


def tables(program):
    """Names of the functions that entries of tables point to, by the entries' addresses."""
    def output(*command):
        return subprocess.run([*command, program], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()

    names = {int(line.split()[0], 16): line.split(maxsplit=2)[2] for line in output("nm", "--demangle", "--defined-only")}
    found = filter(None, map(RELOCATION.match, output("objdump", "--dynamic-reloc")))
    return {int(at, 16): names.get(int(to, 16), "") for at, to in (match.groups() for match in found)}


def can_panic(line, table):
    through = THROUGH_TABLE.search(line)
    callee = table.get(int(through.group(1), 16), "") if through else line
    return "call" in line and bool(PANIC.search(callee))


def functions(listing):
    """Names of kernels' functions with their instructions; what differs in constants has one name."""
    name, body = None, []
    for line in listing:
        if line.endswith(">:\n"):
            if name:
                yield name, body
            found = KERNEL.match(line.rstrip())
            name, body = found and found.group(1), []
        elif name and ADDRESS.match(line):
            body.append(line)
    if name:
        yield name, body


def hot_loops(body):
    """Instructions from where a jump back goes to the jump, of loops that have dot products but in no loop within."""
    place = {ADDRESS.match(line).group(1): at for at, line in enumerate(body)}
    ends = {}
    for at, line in enumerate(body):
        found = JUMP.search(line)
        if found and place.get(found.group(1), at + 1) <= at:
            ends[place[found.group(1)]] = at
    loops = [(start, end) for start, end in ends.items() if any(map(DOT_PRODUCT.search, body[start:end + 1]))]
    for start, end in loops:
        if not any((a, b) != (start, end) and start <= a and b <= end for a, b in loops):
            yield body[start:end + 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    given = parser.parse_args()
    command = ["objdump", "--disassemble", "--no-show-raw-insn", "--demangle", given.program]
    table = tables(given.program)
    counts = collections.defaultdict(collections.Counter)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as objdump:
        for name, body in functions(objdump.stdout):
            count = counts[name]
            count["functions"] += 1
            count["calls to panic"] += sum(can_panic(line, table) for line in body)
            for loop in hot_loops(body):
                stores = sum(map(bool, map(TO_STACK.search, loop)))
                count["hot loops"] += 1
                count["that spill"] += stores > 0
                count["most stores"] = max(count["most stores"], stores)
                count["that only read the stack"] += stores == 0 and any(map(FROM_STACK.search, loop))
    if objdump.returncode or not any(count["hot loops"] for count in counts.values()):
        sys.exit(f"{given.program}: no kernels found, expected a program with symbols")
    columns = ["functions", "hot loops", "that spill", "most stores", "that only read the stack", "calls to panic"]
    print(f"{'':44}", *columns, sep="  ")
    for name, count in sorted(counts.items()):
        print(f"{name:44}", *(f"{count[column]:{len(column)}}" for column in columns), sep="  ")
    spill = {name for name, count in counts.items() if count["that spill"]}
    if spill & KNOWN:
        print("known to spill:", *sorted(spill & KNOWN))
    return bool(spill - KNOWN) or any(count["calls to panic"] for count in counts.values())


if __name__ == "__main__":
    sys.exit(main())
