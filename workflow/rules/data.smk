# Datasets: data/<dataset>/<split>/annotations.json in canonical COCO form.


rule make_dataset:
    """The embedded dataset, rendered from its seed. The command makes all splits, or finds them made; the training split is
    a job of its own, which another size of a test split leaves alone, and the trainings with it."""
    output:
        ensure("data/{dataset}/train/annotations.json", non_empty=True),
    log:
        "logs/{dataset}/make_dataset.log",
    benchmark:
        "logs/{dataset}/make_dataset.tsv"
    wildcard_constraints:
        dataset=datasets_of("mini", "crowd"),
    params:
        block=training_block,
    message:
        "Make the dataset {wildcards.dataset}"
    shell:
        "comics data make {wildcards.dataset} &> {log}"


use rule make_dataset as make_other_splits with:
    output:
        ensure(
            expand("data/{{dataset}}/{split}/annotations.json", split=[split for split in SPLITS if split != "train"]),
            non_empty=True,
        ),
    log:
        "logs/{dataset}/make_other_splits.log",
    benchmark:
        "logs/{dataset}/make_other_splits.tsv"
    params:
        block=dataset_block,
    message:
        "Make the other splits of {wildcards.dataset}"


rule fetch_dataset:
    """OpenForensics from its record; what is there already is not fetched again."""
    output:
        touch("data/{dataset}/raw/.fetched"),
    log:
        "logs/{dataset}/fetch_dataset.log",
    wildcard_constraints:
        dataset=datasets_of("openforensics"),
    retries: 3
    params:
        block=dataset_block,
    message:
        "Fetch the dataset {wildcards.dataset}"
    shell:
        "comics data fetch {wildcards.dataset} &> {log}"


rule convert_dataset:
    """OpenForensics' own files to canonical COCO."""
    input:
        rules.fetch_dataset.output,
    output:
        ensure(
            expand("data/{{dataset}}/{split}/annotations.json", split=SPLITS),
            non_empty=True,
        ),
    log:
        "logs/{dataset}/convert_dataset.log",
    benchmark:
        "logs/{dataset}/convert_dataset.tsv"
    wildcard_constraints:
        dataset=datasets_of("openforensics"),
    params:
        block=dataset_block,
    message:
        "Convert the dataset {wildcards.dataset}"
    shell:
        "comics data convert {wildcards.dataset} &> {log}"


for own, block in PARAMS.file.datasets.items():
    if comics_params.given_files(block):

        rule:
            """A user's own files (COCO, masks, videos) to canonical COCO, the splits that there are."""
            name:
                f"convert_{own}"
            input:
                comics_params.given_files(block),
            output:
                ensure(
                    expand(
                        "data/{dataset}/{split}/annotations.json", dataset=own, split=comics_params.splits_of(block)
                    ),
                    non_empty=True,
                ),
            log:
                f"logs/{own}/convert_dataset.log",
            benchmark:
                f"logs/{own}/convert_dataset.tsv"
            params:
                dataset=own,
                block=block.model_dump(mode="json"),
            message:
                "Convert the dataset {params.dataset}"
            shell:
                "comics data convert {params.dataset} &> {log}"


rule encode_masks:
    """The mask code of the detector meinst, fitted to the training masks."""
    input:
        "data/{dataset}/train/annotations.json",
    output:
        ensure("data/{dataset}/mask_codec.npz", non_empty=True),
    log:
        "logs/{dataset}/encode_masks.log",
    benchmark:
        "logs/{dataset}/encode_masks.tsv"
    message:
        "Fit the mask code to the training masks of {wildcards.dataset}"
    shell:
        "comics data encode-masks {wildcards.dataset} &> {log}"


# Compute nodes often have no network.
localrules:
    fetch_dataset,
