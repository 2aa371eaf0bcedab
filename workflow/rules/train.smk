# Weights of a run. `params` is the run's own digest, so that editing one run renews that run alone; it holds a code
# version raised by hand in place of the source files. Checkpoints to resume from are no outputs: Snakemake deletes
# outputs before it runs a step again.


rule train:
    input:
        train=annotations("train"),
        codec=lambda wildcards: (
            f"data/{PARAMS.dataset}/mask_codec.npz" if resolved(wildcards).detector == "meinst" else []
        ),
        prepared=prepared_for,
    output:
        model=ensure(f"{RUN_FOLDER}/model.pt", non_empty=True),
        description=ensure(f"{RUN_FOLDER}/run.json", non_empty=True),
    log:
        f"{LOG_FOLDER}/train.log",
    benchmark:
        f"{LOG_FOLDER}/train.tsv"
    threads: 8
    resources:
        gpu=1,
    params:
        digest=lambda wildcards: resolved(wildcards).checkpoint_digest,
    message:
        "Train {wildcards.run}, seed {wildcards.seed} (progress: tail -f {log})"
    shell:
        "comics train {wildcards.run} --seed {wildcards.seed} &> {log}"


rule encode_masks:
    """The code by which the detector meinst stands for masks, fitted to the training masks."""
    input:
        annotations("train"),
    output:
        ensure(f"data/{PARAMS.dataset}/mask_codec.npz", non_empty=True),
    log:
        f"logs/{PARAMS.dataset}/encode_masks.log",
    message:
        "Fit the mask code of meinst"
    shell:
        "comics data encode-masks &> {log}"
