# COMICS in a container, from requirements.lock:   docker build --tag comics .
# docs/cluster.md tells how it is used, and what of it was tried.
FROM python:3.12-slim

# What decides which layer is made anew stands as late as it can: the packages change seldom, the code often.
COPY requirements.lock /opt/comics/requirements.lock
RUN python -m pip install --no-cache-dir --require-hashes --requirement /opt/comics/requirements.lock

COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE CHANGELOG.md CITATION.cff /opt/comics/
COPY Snakefile params.yaml dvc.yaml .dvcignore .gitignore /opt/comics/
COPY .dvc/config .dvc/.gitignore /opt/comics/.dvc/
COPY workflow /opt/comics/workflow
COPY profiles /opt/comics/profiles
COPY reports/README.md /opt/comics/reports/README.md
COPY results/README.md /opt/comics/results/README.md
COPY comics /opt/comics/comics
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation /opt/comics

# Nobody's files are root's: mount a folder of yours, and give your own number with --user where it is not 1000.
RUN useradd --uid 1000 --create-home comics && mkdir /project && chown comics: /project
USER comics
ENV HOME=/home/comics MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /project
CMD ["comics", "--help"]
