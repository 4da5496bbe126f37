"""datatrove on one core: its FineWeb pipeline over pages, or the same rules and MinHash over texts.

trafilatura is imported before the process that extracts is forked: its limit of a second counts the import.

python datatrove_pipeline.py pages|texts INPUT_FOLDER WORK_FOLDER
"""

import gzip
import json
import shutil
import sys
import time
from pathlib import Path

import trafilatura  # noqa: F401  pyright: ignore[reportMissingImports]
from datatrove.executor.local import LocalPipelineExecutor  # pyright: ignore[reportMissingImports]
from datatrove.pipeline.dedup import (  # pyright: ignore[reportMissingImports]
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig  # pyright: ignore[reportMissingImports]
from datatrove.pipeline.extractors import Trafilatura  # pyright: ignore[reportMissingImports]
from datatrove.pipeline.filters import (  # pyright: ignore[reportMissingImports]
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader, WarcReader  # pyright: ignore[reportMissingImports]
from datatrove.pipeline.writers.jsonl import JsonlWriter  # pyright: ignore[reportMissingImports]

part, given, work = sys.argv[1], sys.argv[2], Path(sys.argv[3])
shutil.rmtree(work, ignore_errors=True)
seconds = {}


def run(name: str, pipeline: list, tasks: int = 1) -> None:
    """Runs one step of it in this process."""
    start = time.perf_counter()
    LocalPipelineExecutor(
        pipeline=pipeline, tasks=tasks, workers=1, logging_dir=str(work / "logs" / name)
    ).run()
    seconds[name] = time.perf_counter() - start


def lines(folder: Path) -> int:
    """Counts the documents written to a folder."""
    return sum(1 for path in folder.rglob("*.jsonl.gz") for _ in gzip.open(path))


if __name__ == "__main__":
    read = [JsonlReader(given)]
    if part == "pages":
        read = [WarcReader(given), Trafilatura(favour_precision=True)]
    filtered, signed, buckets, gone = (
        str(work / name) for name in ("filtered", "signatures", "buckets", "gone")
    )
    rules = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]
    run("filter", [*read, *rules, JsonlWriter(filtered)])
    config = MinhashConfig()  # its default: runs of 5 words, 14 bands of 8
    run("signatures", [JsonlReader(filtered), MinhashDedupSignature(output_folder=signed, config=config)])
    run(
        "buckets",
        [MinhashDedupBuckets(input_folder=signed, output_folder=buckets, config=config)],
        tasks=config.num_buckets,
    )
    run("cluster", [MinhashDedupCluster(input_folder=buckets, output_folder=gone, config=config)])
    out = work / "deduplicated"
    run("write", [JsonlReader(filtered), MinhashDedupFilter(input_folder=gone), JsonlWriter(str(out))])
    found = {"kept": lines(out), "filtered": lines(work / "filtered"), "step_seconds": seconds}
    if part == "pages":
        stats = json.loads((work / "logs" / "filter" / "stats.json").read_text())
        found["timeouts"] = sum(step["stats"].get("timeout", 0) for step in stats)
    print(json.dumps(found))
