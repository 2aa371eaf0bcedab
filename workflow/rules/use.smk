# What a run needs to be used by others: a calibration and a model card. Made by their own names (`snakemake cards`, or a
# file's), never by `all`.


rule calibrate:
    """P(fake) and its thresholds, from detections on a split that training never reads."""
    input:
        annotations=lambda wildcards: needed("val"),
        detections=f"{RUN_FOLDER}/val.detections.json",
        sidecar=f"{RUN_FOLDER}/val.detections.json.meta.json",
        code=sources("evaluation"),
    output:
        calibration=ensure(f"{RUN_FOLDER}/calibration.json", non_empty=True),
        sidecar=ensure(f"{RUN_FOLDER}/calibration.json.meta.json", non_empty=True),
    log:
        f"{LOG_FOLDER}/calibrate.log",
    message:
        "Calibrate {wildcards.run}, seed {wildcards.seed}"
    shell:
        "comics calibrate {wildcards.run} --seed {wildcards.seed} &> {log}"


rule card:
    """The model card, with scores on the test sets."""
    input:
        calibration=rules.calibrate.output.calibration,
        description=rules.train.output.description,
        annotations=[annotations(split) for split in TESTED],
        detections=[f"{RUN_FOLDER}/{split}.detections.json" for split in TESTED],
        code=sources("evaluation", "report"),
    output:
        card=ensure(f"{RUN_FOLDER}/README.md", non_empty=True),
        diagram=ensure(f"{RUN_FOLDER}/reliability.svg", non_empty=True),
        numbers=ensure(f"{RUN_FOLDER}/reliability.json", non_empty=True),
    log:
        f"{LOG_FOLDER}/card.log",
    message:
        "Write the model card of {wildcards.run}, seed {wildcards.seed}"
    shell:
        "comics card {wildcards.run} --seed {wildcards.seed} &> {log}"


rule cards:
    """A model card a run and seed that was trained: asking for them all trains nothing."""
    input:
        [
            f"{folder}/README.md"
            for run in dict.fromkeys(map(PARAMS.canonical, PARAMS.runs))
            if PARAMS.dataset_of(run) == PARAMS.dataset
            for seed in PARAMS.seeds(run)
            if os.path.exists(f"{(folder := PARAMS.resolve(run, seed).folder)}/model.pt")
        ],


localrules:
    card,
    cards,
