# Generalisation: runs on other datasets than that of the file, and their tests beyond their own. Made by name (`snakemake
# generalisation`, or a file's), never by `all`. The steps are those of train.smk and evaluate.smk, with the dataset in the path.

OTHER_DATASETS = (
    "|".join(name for name in dict.fromkeys(map(PARAMS.dataset_of, PARAMS.runs)) if name != PARAMS.dataset) or "(?!)"
)
FOLDER_ON_ANOTHER = "results/{dataset}/{run}/seed{seed}"
LOGS_ON_ANOTHER = "logs/{dataset}/{run}/seed{seed}"


rule train_on_another:
    """Weights of a run on another dataset than the file's."""
    input:
        train=lambda wildcards: needed("train", wildcards.dataset),
        prepared=prepared_for,
        start=start_of,
        validated=validated_on,
    output:
        model=ensure(f"{FOLDER_ON_ANOTHER}/model.pt", non_empty=True),
        description=ensure(f"{FOLDER_ON_ANOTHER}/run.json", non_empty=True),
    log:
        f"{LOGS_ON_ANOTHER}/train.log",
    benchmark:
        f"{LOGS_ON_ANOTHER}/train.tsv"
    wildcard_constraints:
        dataset=OTHER_DATASETS,
    priority: 0 if has_gpu() else 1
    threads: part_of_cores
    resources:
        gpu=lambda wildcards: gpus_of(resolved(wildcards)),
    params:
        digest=lambda wildcards: resolved(wildcards).checkpoint_digest,
    message:
        "Train {wildcards.run} on {wildcards.dataset}, seed {wildcards.seed} (progress: tail -f {log})"
    shell:
        "comics train {wildcards.run} --dataset {wildcards.dataset} --seed {wildcards.seed} &> {log}"


rule predict_on_another:
    """Detections of such a run on its own dataset."""
    input:
        model=rules.train_on_another.output.model,
        annotations="data/{dataset}/{split}/annotations.json",
    output:
        detections=ensure(f"{FOLDER_ON_ANOTHER}/{{split}}.detections.json", non_empty=True),
        sidecar=ensure(f"{FOLDER_ON_ANOTHER}/{{split}}.detections.json.meta.json", non_empty=True),
    log:
        f"{LOGS_ON_ANOTHER}/predict_{{split}}.log",
    benchmark:
        f"{LOGS_ON_ANOTHER}/predict_{{split}}.tsv"
    wildcard_constraints:
        dataset=OTHER_DATASETS,
    threads: part_of_cores
    resources:
        gpu=1,
    params:
        digest=lambda wildcards: resolved(wildcards).digest,
    message:
        "Predict with {wildcards.run} of {wildcards.dataset}, seed {wildcards.seed}, on {wildcards.split}"
    shell:
        "comics predict {wildcards.run} --dataset {wildcards.dataset} --split {wildcards.split} --seed {wildcards.seed} &> {log}"


use rule evaluate_elsewhere as evaluate_on_another with:
    input:
        annotations="data/{dataset}/{split}/annotations.json",
        detections=rules.predict_on_another.output.detections,
        sidecar=rules.predict_on_another.output.sidecar,
        code=sources("evaluation"),
    output:
        scores=ensure(f"{FOLDER_ON_ANOTHER}/{{split}}.csv", non_empty=True),
        sidecar=ensure(f"{FOLDER_ON_ANOTHER}/{{split}}.csv.meta.json", non_empty=True),
    log:
        f"{LOGS_ON_ANOTHER}/evaluate_{{split}}.log",
    benchmark:
        f"{LOGS_ON_ANOTHER}/evaluate_{{split}}.tsv"
    wildcard_constraints:
        dataset=OTHER_DATASETS,
    message:
        "Evaluate {wildcards.run} of {wildcards.dataset}, seed {wildcards.seed}, on {wildcards.split}"


use rule details as details_on_another with:
    input:
        annotations="data/{dataset}/{split}/annotations.json",
        detections=rules.predict_on_another.output.detections,
        sidecar=rules.predict_on_another.output.sidecar,
    output:
        ensure(
            [
                f"{FOLDER_ON_ANOTHER}/{{split}}.details/{name}.csv{suffix}"
                for name in DETAILS
                for suffix in ("", ".meta.json")
            ],
            non_empty=True,
        ),
    log:
        f"{LOGS_ON_ANOTHER}/details_{{split}}.log",
    benchmark:
        f"{LOGS_ON_ANOTHER}/details_{{split}}.tsv"
    wildcard_constraints:
        dataset=OTHER_DATASETS,


rule predict_across:
    """Detections of a run on a dataset that it was not trained on."""
    input:
        model=f"{FOLDER_ON_ANOTHER}/model.pt",
        annotations="data/{test}/{split}/annotations.json",
    output:
        detections=ensure(f"{FOLDER_ON_ANOTHER}/on_{{test}}/{{split}}.detections.json", non_empty=True),
        sidecar=ensure(f"{FOLDER_ON_ANOTHER}/on_{{test}}/{{split}}.detections.json.meta.json", non_empty=True),
    log:
        f"{LOGS_ON_ANOTHER}/predict_{{test}}_{{split}}.log",
    benchmark:
        f"{LOGS_ON_ANOTHER}/predict_{{test}}_{{split}}.tsv"
    wildcard_constraints:
        dataset="|".join(PARAMS.file.datasets),
        test="|".join(PARAMS.file.datasets),
    threads: part_of_cores
    resources:
        gpu=1,
    params:
        digest=lambda wildcards: resolved(wildcards).digest,
    message:
        "Predict with {wildcards.run} of {wildcards.dataset}, seed {wildcards.seed}, on {wildcards.split} of {wildcards.test}"
    shell:
        "comics predict {wildcards.run} --dataset {wildcards.dataset} --on {wildcards.test} --split {wildcards.split} "
        "--seed {wildcards.seed} &> {log}"


use rule evaluate_elsewhere as evaluate_across with:
    input:
        annotations="data/{test}/{split}/annotations.json",
        detections=rules.predict_across.output.detections,
        sidecar=rules.predict_across.output.sidecar,
        code=sources("evaluation"),
    output:
        scores=ensure(f"{FOLDER_ON_ANOTHER}/on_{{test}}/{{split}}.csv", non_empty=True),
        sidecar=ensure(f"{FOLDER_ON_ANOTHER}/on_{{test}}/{{split}}.csv.meta.json", non_empty=True),
    log:
        f"{LOGS_ON_ANOTHER}/evaluate_{{test}}_{{split}}.log",
    benchmark:
        f"{LOGS_ON_ANOTHER}/evaluate_{{test}}_{{split}}.tsv"
    wildcard_constraints:
        dataset="|".join(PARAMS.file.datasets),
        test="|".join(PARAMS.file.datasets),
    message:
        "Evaluate {wildcards.run} of {wildcards.dataset}, seed {wildcards.seed}, on {wildcards.split} of {wildcards.test}"


rule resample_across:
    """Intervals over images of a run's scores on a dataset that it was not trained on."""
    input:
        annotations="data/{test}/{split}/annotations.json",
        detections=rules.predict_across.output.detections,
        sidecar=rules.predict_across.output.sidecar,
        code=sources("evaluation"),
    output:
        intervals=ensure(f"{FOLDER_ON_ANOTHER}/on_{{test}}/{{split}}.intervals.csv", non_empty=True),
        sidecar=ensure(f"{FOLDER_ON_ANOTHER}/on_{{test}}/{{split}}.intervals.csv.meta.json", non_empty=True),
    log:
        f"{LOGS_ON_ANOTHER}/resample_{{test}}_{{split}}.log",
    benchmark:
        f"{LOGS_ON_ANOTHER}/resample_{{test}}_{{split}}.tsv"
    wildcard_constraints:
        dataset="|".join(PARAMS.file.datasets),
        test="|".join(PARAMS.file.datasets),
    message:
        "Resample the images of {wildcards.test} for {wildcards.run} of {wildcards.dataset}, seed {wildcards.seed}"
    shell:
        "comics evaluate {input.annotations} {input.detections:q} --bootstrap 1000 --intervals {output.intervals} &> {log}"


use rule resample_across as resample with:
    input:
        annotations="data/{dataset}/{split}/annotations.json",
        detections=f"{FOLDER_ON_ANOTHER}/{{split}}.detections.json",
        sidecar=f"{FOLDER_ON_ANOTHER}/{{split}}.detections.json.meta.json",
        code=sources("evaluation"),
    output:
        intervals=ensure(f"{FOLDER_ON_ANOTHER}/{{split}}.intervals.csv", non_empty=True),
        sidecar=ensure(f"{FOLDER_ON_ANOTHER}/{{split}}.intervals.csv.meta.json", non_empty=True),
    log:
        f"{LOGS_ON_ANOTHER}/resample_{{split}}.log",
    benchmark:
        f"{LOGS_ON_ANOTHER}/resample_{{split}}.tsv"
    wildcard_constraints:
        dataset="|".join(PARAMS.file.datasets),
    message:
        "Resample the images of {wildcards.dataset} for {wildcards.run}, seed {wildcards.seed}"


rule render_generalisation:
    """A matrix as table and figure."""
    input:
        lambda wildcards: plan.matrix_files(PARAMS, wildcards.matrix),
        code=sources("report"),
    output:
        ensure(
            multiext(f"{REPORTS}/generalisation/{{matrix}}", ".tex", ".md", ".csv", ".pdf", ".svg", ".png"),
            non_empty=True,
        ),
    log:
        f"logs/{REPORTS}/generalisation_{{matrix}}.log",
    wildcard_constraints:
        matrix="|".join(PARAMS.matrices) or "(?!)",
    params:
        block=lambda wildcards: PARAMS.matrices[wildcards.matrix].model_dump(mode="json"),
    message:
        "Render the generalisation {wildcards.matrix}"
    shell:
        "comics generalisation {wildcards.matrix} &> {log}"


rule generalisation:
    """All matrices."""
    input:
        expand(f"{REPORTS}/generalisation/{{matrix}}.{{format}}", matrix=PARAMS.matrices, format=["tex", "png"]),


localrules:
    render_generalisation,
    generalisation,
