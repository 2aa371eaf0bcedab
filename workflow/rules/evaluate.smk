# Detections of a run on a split, and their scores.


rule predict:
    input:
        model=rules.train.output.model,
        annotations=annotations("{split}"),
    output:
        detections=ensure(f"{RUN_FOLDER}/{{split}}.detections.json", non_empty=True),
        sidecar=ensure(f"{RUN_FOLDER}/{{split}}.detections.json.meta.json", non_empty=True),
    log:
        f"{LOG_FOLDER}/predict_{{split}}.log",
    benchmark:
        f"{LOG_FOLDER}/predict_{{split}}.tsv"
    threads: 8
    resources:
        gpu=1,
    params:
        digest=lambda wildcards: resolved(wildcards).digest,
    message:
        "Predict with {wildcards.run}, seed {wildcards.seed}, on {wildcards.split}"
    shell:
        "comics predict {wildcards.run} --split {wildcards.split} --seed {wildcards.seed} &> {log}"


rule evaluate:
    input:
        annotations=annotations("{split}"),
        detections=rules.predict.output.detections,
        sidecar=rules.predict.output.sidecar,
        code=sources("evaluation"),
    output:
        scores=ensure(f"{RUN_FOLDER}/{{split}}.csv", non_empty=True),
        sidecar=ensure(f"{RUN_FOLDER}/{{split}}.csv.meta.json", non_empty=True),
    log:
        f"{LOG_FOLDER}/evaluate_{{split}}.log",
    benchmark:
        f"{LOG_FOLDER}/evaluate_{{split}}.tsv"
    message:
        "Evaluate {wildcards.run}, seed {wildcards.seed}, on {wildcards.split}"
    shell:
        "comics evaluate {input.annotations} {input.detections} --output {output.scores} &> {log}"
