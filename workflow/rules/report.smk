# Tables and figures, by the commands that dvc.yaml also calls; here the results they need are made first.


rule table:
    input:
        files=lambda wildcards: plan.table_files(PARAMS, wildcards.table, requested_runs()),
        code=sources("report"),
    output:
        tex=report(
            ensure(f"{REPORTS}/{{table}}.tex", non_empty=True),
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}", "format": "LaTeX"},
        ),
        csv=ensure(f"{REPORTS}/{{table}}.csv", non_empty=True),
        md=ensure(f"{REPORTS}/{{table}}.md", non_empty=True),
    log:
        f"logs/{REPORTS}/{{table}}.log",
    wildcard_constraints:
        table="|".join(PARAMS.tables) or "(?!)",
    params:
        block=lambda wildcards: plan.block_of(PARAMS, "tables", wildcards.table),
    message:
        "Render {wildcards.table}"
    shell:
        "comics table {wildcards.table} &> {log}"


rule compare_table:
    """Which rows are not significantly different from the best: the table marks them."""
    input:
        files=lambda wildcards: plan.compared_files(PARAMS, wildcards.table, requested_runs()),
        code=sources("evaluation"),
    output:
        ensure(f"{PARAMS.compared('comparisons')}/{{table}}.json", non_empty=True),
    log:
        f"logs/{REPORTS}/compare_{{table}}.log",
    wildcard_constraints:
        table="|".join(PARAMS.tables) or "(?!)",
    params:
        block=lambda wildcards: plan.compared_block(PARAMS, wildcards.table),
    message:
        "Compare the rows of {wildcards.table}"
    shell:
        "comics compare-table {wildcards.table} &> {log}"


rule figure:
    input:
        files=lambda wildcards: plan.figure_files(PARAMS, wildcards.figure, requested_runs()),
        code=sources("report"),
    output:
        pdf=ensure(f"{REPORTS}/figures/{{figure}}.pdf", non_empty=True),
        svg=report(
            ensure(f"{REPORTS}/figures/{{figure}}.svg", non_empty=True),
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        png=ensure(f"{REPORTS}/figures/{{figure}}.png", non_empty=True),
    log:
        f"logs/{REPORTS}/{{figure}}.log",
    wildcard_constraints:
        figure="|".join(PARAMS.figures) or "(?!)",
    params:
        block=lambda wildcards: plan.block_of(PARAMS, "figures", wildcards.figure),
    message:
        "Render {wildcards.figure}"
    shell:
        "comics figure {wildcards.figure} &> {log}"


rule page:
    """The page with everything that there is; what is not says so in its place."""
    input:
        files=lambda wildcards: plan.page_files(PARAMS, requested_runs(), requested_tables()),
        code=sources("report"),
    output:
        report(
            ensure(f"{REPORTS}/index.html", non_empty=True),
            caption="../report/page.rst",
            category="Page",
        ),
    log:
        f"logs/{REPORTS}/page.log",
    params:
        digest=comics_params.digest_of(PARAMS.file.model_dump(mode="json")),
        # Shown where they are there; as inputs, a change of their runs would train those anew.
        studies=plan.study_digests(PARAMS),
        beyond=plan.beyond_digests(PARAMS),
    message:
        "Render the page"
    shell:
        "comics page &> {log}"


rule tables:
    input:
        expand(f"{REPORTS}/{{table}}.{{format}}", table=PARAMS.tables, format=["tex", "csv", "md"]),


rule figures:
    input:
        expand(f"{REPORTS}/figures/{{figure}}.{{format}}", figure=PARAMS.figures, format=["pdf", "svg", "png"]),


rule paper:
    """All tables and figures in one document; needs latexmk and pdflatex."""
    input:
        rules.tables.input,
        rules.figures.input,
    output:
        report(ensure(f"{REPORTS}/paper.pdf", non_empty=True), caption="../report/paper.rst", category="Paper"),
    log:
        f"logs/{REPORTS}/paper.log",
    params:
        studies=plan.study_digests(PARAMS),
    message:
        f"Compile {REPORTS}/paper.pdf"
    shell:
        "comics paper &> {log}"


localrules:
    table,
    figure,
    page,
    paper,
