# Studies: runs against a baseline over several seeds. Made by their own names (`snakemake claim`), never by `all`.


rule compare_study:
    """Differences from the baseline with paired intervals."""
    input:
        annotations=lambda wildcards: annotations(PARAMS.studies[wildcards.study].split),
        detections=lambda wildcards: plan.study_files(PARAMS, wildcards.study),
        code=sources("evaluation"),
    output:
        ensure(f"{PARAMS.compared('studies')}/{{study}}.json", non_empty=True),
    log:
        "logs/studies/compare_{study}.log",
    wildcard_constraints:
        study="|".join(PARAMS.studies) or "(?!)",
    params:
        block=lambda wildcards: PARAMS.studies[wildcards.study].model_dump(mode="json"),
    message:
        "Compare the runs of the study {wildcards.study}"
    shell:
        "comics compare-study {wildcards.study} &> {log}"


rule study:
    """Its table and its figure."""
    input:
        rules.compare_study.output,
        code=sources("report"),
    output:
        report(
            ensure(f"{REPORTS}/studies/{{study}}.svg", non_empty=True),
            caption="../report/study.rst",
            category="Studies",
            labels={"study": "{study}"},
        ),
        ensure(
            multiext(f"{REPORTS}/studies/{{study}}", ".tex", ".md", ".csv", ".pdf", ".png"),
            non_empty=True,
        ),
    log:
        "logs/studies/{study}.log",
    wildcard_constraints:
        study="|".join(PARAMS.studies) or "(?!)",
    params:
        block=lambda wildcards: PARAMS.studies[wildcards.study].model_dump(mode="json"),
    message:
        "Render the study {wildcards.study}"
    shell:
        "comics study {wildcards.study} &> {log}"


for one in PARAMS.studies:

    rule:
        name:
            one
        input:
            multiext(f"{REPORTS}/studies/{one}", ".tex", ".md", ".csv", ".pdf", ".svg", ".png"),


localrules:
    study,
