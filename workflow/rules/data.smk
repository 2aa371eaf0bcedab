# Datasets: data/<dataset>/<split>/annotations.json in canonical COCO form.


rule make_dataset:
    """The embedded dataset, rendered from its seed."""
    output:
        ensure(
            expand("data/{{dataset}}/{split}/annotations.json", split=SPLITS),
            non_empty=True,
        ),
    log:
        "logs/{dataset}/make_dataset.log",
    benchmark:
        "logs/{dataset}/make_dataset.tsv"
    wildcard_constraints:
        dataset=datasets_of("mini"),
    params:
        block=dataset_block,
    message:
        "Make the dataset {wildcards.dataset}"
    shell:
        "comics data make {wildcards.dataset} &> {log}"


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


rule convert_own_dataset:
    """A user's own COCO files to canonical COCO."""
    input:
        lambda wildcards: list(PARAMS.file.datasets[wildcards.dataset].annotations.values()),
    output:
        ensure(
            expand("data/{{dataset}}/{split}/annotations.json", split=SPLITS),
            non_empty=True,
        ),
    log:
        "logs/{dataset}/convert_own_dataset.log",
    benchmark:
        "logs/{dataset}/convert_own_dataset.tsv"
    wildcard_constraints:
        dataset=datasets_of("coco"),
    params:
        block=dataset_block,
    message:
        "Convert the dataset {wildcards.dataset}"
    shell:
        "comics data convert {wildcards.dataset} &> {log}"
