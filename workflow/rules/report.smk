# Tables and figures, by the commands that dvc.yaml also calls; here the results they need are made first.


rule table:
    input:
        scores=lambda wildcards: plan.table_files(PARAMS, wildcards.table, requested_runs()),
        code=sources("report"),
    output:
        tex=report(
            ensure("reports/{table}.tex", non_empty=True),
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}", "format": "LaTeX"},
        ),
        csv=ensure("reports/{table}.csv", non_empty=True),
        md=ensure("reports/{table}.md", non_empty=True),
    log:
        "logs/reports/{table}.log",
    wildcard_constraints:
        table="|".join(PARAMS.tables) or "(?!)",
    params:
        block=lambda wildcards: plan.block_of(PARAMS, "tables", wildcards.table),
    message:
        "Render {wildcards.table}"
    shell:
        "comics table {wildcards.table} &> {log}"


rule figure:
    input:
        files=lambda wildcards: plan.figure_files(PARAMS, wildcards.figure, requested_runs()),
        code=sources("report"),
    output:
        pdf=ensure("reports/figures/{figure}.pdf", non_empty=True),
        svg=report(
            ensure("reports/figures/{figure}.svg", non_empty=True),
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        png=ensure("reports/figures/{figure}.png", non_empty=True),
    log:
        "logs/reports/{figure}.log",
    wildcard_constraints:
        figure="|".join(PARAMS.figures) or "(?!)",
    params:
        block=lambda wildcards: plan.block_of(PARAMS, "figures", wildcards.figure),
    message:
        "Render {wildcards.figure}"
    shell:
        "comics figure {wildcards.figure} &> {log}"


rule tables:
    input:
        expand(
            "reports/{table}.{format}",
            table=PARAMS.tables,
            format=["tex", "csv", "md"],
        ),


rule figures:
    input:
        expand(
            "reports/figures/{figure}.{format}",
            figure=PARAMS.figures,
            format=["pdf", "svg", "png"],
        ),


localrules:
    table,
    figure,
