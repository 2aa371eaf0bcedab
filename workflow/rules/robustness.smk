# Robustness: scores of runs on perturbed images that are never written. Made by name (`snakemake robustness`), never by `all`.

ROBUSTNESS = PARAMS.file.robustness

if ROBUSTNESS is not None:

    rule calibrate_severities:
        """How strongly each operation is applied at each severity: the same for all runs."""
        input:
            annotations=annotations(ROBUSTNESS.split),
            code=sources("data/perturb"),
        output:
            severities=ensure(f"{PARAMS.compared('robustness')}/severities.json", non_empty=True),
            sidecar=ensure(f"{PARAMS.compared('robustness')}/severities.json.meta.json", non_empty=True),
        log:
            f"logs/{PARAMS.dataset}/calibrate_severities.log",
        benchmark:
            f"logs/{PARAMS.dataset}/calibrate_severities.tsv"
        params:
            block=ROBUSTNESS.model_dump(mode="json", include={"split", "images", "families"}),
        message:
            "Calibrate the severities of perturbations"
        shell:
            "comics robustness calibrate &> {log}"

    rule measure_robustness:
        """Perturbed, found and scored in memory, operation by operation."""
        input:
            model=rules.train.output.model,
            annotations=annotations(ROBUSTNESS.split),
            severities=rules.calibrate_severities.output,
            code=sources("evaluation"),
        output:
            scores=ensure(f"{RUN_FOLDER}/robustness.csv", non_empty=True),
            sidecar=ensure(f"{RUN_FOLDER}/robustness.csv.meta.json", non_empty=True),
        log:
            f"{LOG_FOLDER}/robustness.log",
        benchmark:
            f"{LOG_FOLDER}/robustness.tsv"
        threads: part_of_cores
        resources:
            gpu=1,
        params:
            digest=lambda wildcards: resolved(wildcards).digest,
            block=ROBUSTNESS.model_dump(mode="json", include={"split", "images", "severities", "families"}),
        message:
            "Measure the robustness of {wildcards.run}, seed {wildcards.seed}"
        shell:
            "comics robustness measure {wildcards.run} --seed {wildcards.seed} &> {log}"

    rule render_robustness:
        """Curves, heat map and table."""
        input:
            plan.robustness_files(PARAMS),
            code=sources("report"),
        output:
            ensure(
                multiext(f"{REPORTS}/robustness/table", ".tex", ".md", ".csv"),
                non_empty=True,
            ),
            ensure(
                [
                    f"{REPORTS}/robustness/{figure}{suffix}"
                    for figure in ("curves", "heat_map")
                    for suffix in (".pdf", ".svg", ".png")
                ],
                non_empty=True,
            ),
        log:
            "logs/reports/robustness.log",
        params:
            block=ROBUSTNESS.model_dump(mode="json"),
        message:
            "Render the robustness of the runs"
        shell:
            "comics robustness report &> {log}"

    rule robustness:
        input:
            rules.render_robustness.output,

    localrules:
        render_robustness,
        robustness,
