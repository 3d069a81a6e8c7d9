"""Medians and ratios of what scripts/bench-train.sh measured: python3 scripts/bench-summary.py FOLDER"""

import json
import statistics
import sys
from pathlib import Path

SHARED = ("forward", "loss", "backward", "optimizer", "step")


def runs(folder, kind, threads):
    files = sorted(folder.glob(f"{kind}-{threads}-*.json"))
    return [json.loads(file.read_text()) for file in files]


def median(figures, *path):
    values = []
    for figure in figures:
        for key in path:
            figure = figure[key]
        values.append(figure)
    return statistics.median(values)


def main():
    folder = Path(sys.argv[1])
    first = runs(folder, "ours", 2)[0]
    batch = first["batch"]
    views = batch["pictures"] + batch["second_pictures"]
    texts = batch["texts"] + batch["second_texts"]
    print(f"{first['parameters']} parameters; a batch: {views} pictures, {texts} texts, "
          f"{batch['token_ids']} token ids")
    for threads in (2, 1):
        ours, torch, kept = (runs(folder, kind, threads) for kind in ("ours", "torch", "kept"))
        print(f"\nthreads: {threads}; PyTorch {torch[0]['torch']}, {torch[0]['layout']}, "
              f"BLAS {median(torch, 'blas_gflops'):.0f} GFLOP/s")
        print("| stage | ms | pictures/s | PyTorch ms | ratio | PyTorch, memory kept, ms | ratio |")
        print("|---|---|---|---|---|---|---|")
        for stage in ours[0]["milliseconds"]:
            mine = median(ours, "milliseconds", stage)
            row = [stage, f"{mine:.1f}", f"{views / mine * 1e3:.0f}"]
            for theirs in (torch, kept):
                if stage not in SHARED:
                    row += ["", ""]
                    continue
                # Each round's two runs stand next to each other in time: the ratio is theirs.
                ratios = [b["milliseconds"][stage] / a["milliseconds"][stage]
                          for a, b in zip(ours, theirs)]
                row.append(f"{median(theirs, 'milliseconds', stage):.1f}")
                row.append(f"{statistics.median(ratios):.2f}")
            print("| " + " | ".join(row) + " |")
        print(f"memory, MiB at most: {median(ours, 'mebibytes', 'peak'):.0f} "
              f"({median(ours, 'mebibytes', 'opened'):.0f} with data and model open); "
              f"PyTorch {median(torch, 'mebibytes', 'peak'):.0f}, "
              f"memory kept {median(kept, 'mebibytes', 'peak'):.0f}")


main()
