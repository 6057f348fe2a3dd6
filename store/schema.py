"""The tables of the index. A change here needs a migration beside it (``store/migrations/versions``)."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite counts by itself only in a column of type INTEGER.
_Counter = BigInteger().with_variant(Integer(), "sqlite")


class Moment(TypeDecorator[datetime]):
    """A point in time: timezone-aware UTC outside, naive UTC in the database."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to naive UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the time zone back."""
        return None if value is None else value.replace(tzinfo=UTC)


instances = Table(
    "instances",
    metadata,
    Column("seq", _Counter, primary_key=True, autoincrement=True),
    Column("sop_instance_uid", String(64), nullable=False, unique=True),
    Column("series_instance_uid", String(64), nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(128), nullable=False),
    # Revision of the series that this instance made: grows in the order in which its transactions commit.
    Column("revision", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("path", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("header", Text, nullable=False),
    Column("transport", String(16), nullable=False),
    Column("sender", String(64), nullable=False),
    Column("address", String(255), nullable=False),
    Column("received_at", Moment, nullable=False),
    # Who the patient is, keyed with the installation's secret; empty where that is not known.
    Column("patient_key", String(64)),
    Index("instances_by_patient", "patient_key"),
    Index("instances_by_series", "series_instance_uid", "revision"),
    Index("instances_by_study", "study_instance_uid"),
    sqlite_autoincrement=True,
)

series = Table(
    "series",
    metadata,
    Column("series_instance_uid", String(64), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False),
    Column("instances", Integer, nullable=False),
    Column("conflicts", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("frozen_revision", BigInteger, nullable=False),
    # What a sender announced, and what the instances themselves say in (0020,1209).
    Column("announced", Integer),
    Column("related", Integer),
    Column("sender", String(64), nullable=False),
    Column("first_arrival_at", Moment),
    Column("last_arrival_at", Moment),
)
Index(
    "series_with_arrivals",
    series.c.series_instance_uid,
    sqlite_where=series.c.revision > series.c.frozen_revision,
    postgresql_where=series.c.revision > series.c.frozen_revision,
)
Index("series_by_last_arrival", series.c.last_arrival_at)

quarantine = Table(
    "quarantine",
    metadata,
    Column("seq", _Counter, primary_key=True, autoincrement=True),
    Column("reason", String(32), nullable=False),
    # All empty where the file could not be read.
    Column("sop_instance_uid", String(64)),
    Column("series_instance_uid", String(64)),
    # Series of the first copy, which is kept.
    Column("kept_series_instance_uid", String(64)),
    Column("digest", String(64)),
    Column("path", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("transport", String(16), nullable=False),
    Column("sender", String(64), nullable=False),
    Column("address", String(255), nullable=False),
    Column("received_at", Moment, nullable=False),
    UniqueConstraint("sop_instance_uid", "digest", name="quarantine_once"),
    Index("quarantine_by_series", "series_instance_uid"),
    sqlite_autoincrement=True,
)

# Files whose rows are gone and that must go too: without this note a crash in between would bring them back.
removals = Table("removals", metadata, Column("path", String(255), primary_key=True))

jobs = Table(
    "jobs",
    metadata,
    Column("seq", _Counter, primary_key=True, autoincrement=True),
    Column("job_id", String(64), nullable=False, unique=True),
    Column("series_instance_uid", String(64), nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    Column("stack", Text, nullable=False),
    Column("sop_instance_uids", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("engine_version", Text, nullable=False),
    Column("destinations", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("predecessor", String(64)),
    # SOP Instance UID of the object in which the prompt was drawn.
    Column("drawing", String(64), nullable=False, server_default=""),
    Column("state", String(16), nullable=False),
    Column("code", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("timings_s", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Index("jobs_by_series", "series_instance_uid"),
    Index("jobs_by_study", "study_instance_uid"),
    Index("jobs_by_state", "state"),
    sqlite_autoincrement=True,
)

objects = Table(
    "objects",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("series_instance_uid", String(64), nullable=False),
    Column("path", Text, nullable=False),
    # Which of the job's objects it is, to which it refers, and which takes its place where it is refused.
    Column("variant", Text, nullable=False, server_default=""),
    Column("needs", Text, nullable=False, server_default=""),
    Column("fallback", Text, nullable=False, server_default=""),
    # JSON; empty for every destination of the job.
    Column("destinations", Text),
    Index("objects_by_uid", "sop_instance_uid"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("destination", String(64), primary_key=True),
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("updated_at", Moment, nullable=False),
)

# Who works on a part of a job: a number that grows with every worker that begins.
claims = Table(
    "claims",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("part", String(80), primary_key=True),
    Column("number", BigInteger, nullable=False),
)

# Storage commitment: our questions to destinations.
transactions = Table(
    "transactions",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("job_id", String(64), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("sop_instance_uids", Text, nullable=False),
    Column("requested_at", Moment, nullable=False),
    Column("taken", Boolean, nullable=False),
    Column("answered", Boolean, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("committed", Text, nullable=False),
    Column("failed", Text, nullable=False),
    Index("transactions_by_job", "job_id", "destination"),
)

# And the questions of others to us. A row outlives its answer: by it a repeated Transaction UID is known.
commitment_requests = Table(
    "commitment_requests",
    metadata,
    Column("ae_title", String(16), primary_key=True),
    Column("transaction_uid", String(64), primary_key=True),
    Column("duplicate", Boolean, primary_key=True),
    Column("called_ae_title", String(16), nullable=False),
    Column("refs", Text, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    # Empty when nothing is due any more.
    Column("due_at", Moment),
    Index("commitment_requests_due", "due_at"),
)
