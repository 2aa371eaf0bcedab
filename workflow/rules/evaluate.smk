# Detections of a run, and their scores.


rule predict:
    """On all test sets in one process: on small ones, its start takes longer than they do."""
    input:
        model=rules.train.output.model,
        annotations=[annotations(split) for split in TESTED],
    output:
        detections=ensure(
            [f"{RUN_FOLDER}/{split}.detections.json" for split in TESTED],
            non_empty=True,
        ),
        sidecars=ensure(
            [f"{RUN_FOLDER}/{split}.detections.json.meta.json" for split in TESTED],
            non_empty=True,
        ),
    log:
        f"{LOG_FOLDER}/predict.log",
    benchmark:
        f"{LOG_FOLDER}/predict.tsv"
    threads: part_of_cores
    resources:
        gpu=1,
    params:
        digest=lambda wildcards: resolved(wildcards).digest,
        splits=[f"--split {split}" for split in TESTED],
    message:
        "Predict with {wildcards.run}, seed {wildcards.seed}"
    shell:
        "comics predict {wildcards.run} {params.splits} --seed {wildcards.seed} &> {log}"


use rule predict as predict_other with:
    input:
        model=rules.train.output.model,
        annotations=annotations("{split}"),
    output:
        detections=ensure(f"{RUN_FOLDER}/{{split}}.detections.json", non_empty=True),
        sidecars=ensure(f"{RUN_FOLDER}/{{split}}.detections.json.meta.json", non_empty=True),
    log:
        f"{LOG_FOLDER}/predict_{{split}}.log",
    benchmark:
        f"{LOG_FOLDER}/predict_{{split}}.tsv"
    wildcard_constraints:
        split="|".join(split for split in SPLITS if split not in TESTED),
    params:
        digest=lambda wildcards: resolved(wildcards).digest,
        splits="--split {split}",


rule evaluate:
    """On all test sets in one job, for the same reason; and a finished project of many runs is looked at sooner."""
    input:
        annotations=[annotations(split) for split in TESTED],
        detections=rules.predict.output,
    output:
        scores=ensure([f"{RUN_FOLDER}/{split}.csv" for split in TESTED], non_empty=True),
        sidecars=ensure([f"{RUN_FOLDER}/{split}.csv.meta.json" for split in TESTED], non_empty=True),
    log:
        f"{LOG_FOLDER}/evaluate.log",
    benchmark:
        f"{LOG_FOLDER}/evaluate.tsv"
    params:
        splits=TESTED,
        code=code_of("evaluation"),
        truth=subpath(input[0], ancestor=2),
        folder=subpath(output[0], parent=True),
    message:
        "Evaluate {wildcards.run}, seed {wildcards.seed}"
    shell:
        "for split in {params.splits}; do "
        "comics evaluate {params.truth:q}/$split/annotations.json {params.folder:q}/$split.detections.json "
        "--output {params.folder:q}/$split.csv; done &> {log}"


use rule evaluate as evaluate_other with:
    input:
        annotations=annotations("{split}"),
        detections=rules.predict_other.output,
    output:
        scores=ensure(f"{RUN_FOLDER}/{{split}}.csv", non_empty=True),
        sidecars=ensure(f"{RUN_FOLDER}/{{split}}.csv.meta.json", non_empty=True),
    log:
        f"{LOG_FOLDER}/evaluate_{{split}}.log",
    benchmark:
        f"{LOG_FOLDER}/evaluate_{{split}}.tsv"
    wildcard_constraints:
        split="|".join(split for split in SPLITS if split not in TESTED),
    params:
        splits="{split}",
        code=code_of("evaluation"),
        truth=subpath(input[0], ancestor=2),
        folder=subpath(output[0], parent=True),
    message:
        "Evaluate {wildcards.run}, seed {wildcards.seed}, on {wildcards.split}"


rule evaluate_elsewhere:
    """Detections of a system that was run elsewhere, as a row of a table."""
    input:
        annotations=annotations("{split}"),
        detections=detections_elsewhere,
        code=sources("evaluation"),
    output:
        scores=ensure(f"results/{PARAMS.dataset}/elsewhere/{{elsewhere}}/{{split}}.csv", non_empty=True),
        sidecar=ensure(f"results/{PARAMS.dataset}/elsewhere/{{elsewhere}}/{{split}}.csv.meta.json", non_empty=True),
    log:
        f"logs/{PARAMS.dataset}/elsewhere/{{elsewhere}}/evaluate_{{split}}.log",
    benchmark:
        f"logs/{PARAMS.dataset}/elsewhere/{{elsewhere}}/evaluate_{{split}}.tsv"
    wildcard_constraints:
        elsewhere="|".join(map(re.escape, ELSEWHERE)) or "(?!)",
    message:
        "Evaluate {input.detections} on {wildcards.split}"
    shell:
        "comics evaluate {input.annotations} {input.detections:q} --output {output.scores} &> {log}"


DETAILS = ("by_size", "by_faces", "by_forgery", "by_overlap", "confusion", "errors")


rule details:
    """Where the scores come from: by size, faces in the image, kind of forgery and overlap, and kinds of error."""
    input:
        annotations=annotations("{split}"),
        detections=f"{RUN_FOLDER}/{{split}}.detections.json",
        sidecar=f"{RUN_FOLDER}/{{split}}.detections.json.meta.json",
    output:
        ensure(
            [
                f"{RUN_FOLDER}/{{split}}.details/{name}.csv{suffix}"
                for name in DETAILS
                for suffix in ("", ".meta.json")
            ],
            non_empty=True,
        ),
    log:
        f"{LOG_FOLDER}/details_{{split}}.log",
    benchmark:
        f"{LOG_FOLDER}/details_{{split}}.tsv"
    params:
        folder=subpath(output[0], parent=True),
        code=code_of("evaluation"),
    message:
        "Break down the scores of {wildcards.run}, seed {wildcards.seed}, on {wildcards.split}"
    shell:
        "comics evaluate {input.annotations} {input.detections} --details {params.folder} &> {log}"
