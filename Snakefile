# The DAG of COMICS: data -> weights -> predictions -> scores -> reports. What the runs, tables and figures are stands
# in params.yaml; what a step does stands in the `comics` command it calls. docs/workflow.md explains both.
from shutil import which

from snakemake.utils import min_version

min_version("9.20")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/study.smk"
include: "workflow/rules/robustness.smk"
include: "workflow/rules/generalisation.smk"
include: "workflow/rules/use.smk"


localrules:
    all,
    tables,
    figures,


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.figures.input,
        rules.page.output,
        # Without a LaTeX there is no PDF, and all the rest; `snakemake reports/paper.pdf` says what is missing.
        rules.paper.output if which("latexmk") and which("pdflatex") else [],
