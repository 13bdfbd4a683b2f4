"""What a query over the history may name besides functions: tables, formats, settings, limits."""

from __future__ import annotations

import re

from consumers.sql_functions import words

DATABASE = "driftlog"

LIMITS = {
    "max_execution_time": 60,
    "max_memory_usage": 2_000_000_000,
    "max_result_rows": 5_000_000,
    "max_result_bytes": 1_000_000_000,
    "max_threads": 2,
}
"""What one query may use (seconds, bytes, rows); a query can lower these, not lift them."""

FIXED = {"function_range_max_elements_in_block": 5_000_000}
"""What no query may change: the engine looks at the clock between blocks, so `range` must not fill one."""

MAX_NUMBERS = 10_000_000
"""Largest argument of a table function: how many rows it may make up."""

TABLE_FUNCTIONS = words("numbers generate_series generateseries")

SYSTEM_TABLES = {
    "system": words(
        """
        one tables columns databases functions settings parts formats data_type_families time_zones
        contributors licenses aggregate_function_combinators table_functions build_options keywords
        """
    ),
    "information_schema": words("tables columns schemata views key_column_usage"),
}
"""Only the layout of the history is told; `default` must not be readable: its tables are files."""

FOREIGN_DATABASES = frozenset(["default", "_temporary_and_external_tables", *SYSTEM_TABLES])

FORMATS = words(
    """
    Arrow ArrowStream CSV CSVWithNames CSVWithNamesAndTypes JSON JSONColumns JSONColumnsWithMetadata
    JSONCompact JSONCompactColumns JSONCompactEachRow JSONCompactEachRowWithNames
    JSONCompactEachRowWithNamesAndTypes JSONCompactStrings JSONEachRow JSONLines JSONObjectEachRow
    JSONStrings JSONStringsEachRow Markdown NDJSON Native Null ORC Parquet Pretty PrettyCompact
    PrettyCompactMonoBlock PrettyCompactNoEscapes PrettyNoEscapes PrettySpace RowBinary
    RowBinaryWithNames RowBinaryWithNamesAndTypes TSV TSVRaw TSVWithNames TSVWithNamesAndTypes
    TabSeparated TabSeparatedRaw TabSeparatedRawWithNames TabSeparatedWithNames
    TabSeparatedWithNamesAndTypes TSKV Values Vertical XML
    """
)
"""Formats that write from the result alone; those left out (Template, Protobuf, ...) read schema files."""

BEFORE_BRACKET = words(
    """
    all and any array anti as asc asof between by case columns cross cube desc distinct else end escape
    except exists filter final from full having ilike in inner intersect interval interpolate is join
    left like limit not nulls offset on or order outer over partition prewhere qualify regexp replace right
    rollup select semi sets then to union using when where window with
    decimal decimal32 decimal64 decimal128 decimal256 nullable lowcardinality fixedstring datetime
    datetime64 time64 enum enum8 enum16 nested variant
    """
)
"""Keywords and types that stand before a bracket without being a call."""

NEVER = words("apply infile into outfile parallel settings format")
"""Words that begin a clause which writes, lifts limits or calls a function by its bare name."""

UNSAFE_NAME = re.compile(
    r"file|sleep\w*|dictget\w*|dicthas|dictisin|joinget\w*|ai(?:classify|complete|embed|extract|filter|generate|redact|similarity|translate)\w*"
    r"|filesystem\w+|getsetting\w*|getmacro"
    r"|getserver\w+|getmergetreesetting|getclienthttpheader|showcertificate|logtrace|fuzzquery"
    r"|evalmlmethod|naivebayes\w+|throwif|hascolumnintable|addressto\w+|demangle|serveruuid|formatrow\w*"
    r"|generateserialid|initializeaggregation|globalvariable|structureto\w+|_cast|__\w+"
)
"""Functions whose bare name is refused even where it could be a column."""

COMBINATOR = re.compile(
    r"(if|array|map|distinct|ordefault|ornull|state|simplestate|merge|mergestate|foreach|resample|argmin"
    r"|argmax|null)$"
)

SETTING = re.compile(
    r"max_threads|max_execution_time|max_memory_usage|max_result_rows|max_result_bytes|max_rows_to_read"
    r"|max_bytes_to_read|max_block_size|result_overflow_mode|join_use_nulls|join_algorithm|final"
    r"|group_by_use_nulls|extremes|any_join_distinct_right_table_keys|aggregate_functions_null_for_empty"
    r"|prefer_column_name_to_alias|cast_keep_nullable|transform_null_in|date_time_output_format"
    r"|date_time_input_format|session_timezone|format_csv_delimiter|limit|offset"
    r"|optimize_[a-z_]+|cast_string_to_dynamic_use_inference"
    r"|output_format_(json|csv|tsv|parquet|arrow|pretty|native|orc|values|decimal|write)[a-z0-9_]*"
)

SETTING_VALUE = re.compile(r"[\w ./:,+\-]{0,100}")

FIRST_ARGUMENT_IS_DATA = words(
    """
    arrayconcat arrayelement arrayelementornull arrayzip arrayzipunaligned arrayintersect arrayunion
    arrayexcept arrayresize arrayslice arraypushback arraypushfront arrayrotateleft arrayrotateright
    arrayshiftleft arrayshiftright arrayshingles arraystringconcat array_to_string array_remove arrayremove
    arraywithconstant arraydotproduct arrayrocauc arrayauc arrayaucpr arrayprauc arrayjaccardindex
    arraylevenshteindistance arraysymmetricdifference arrayenumeratedense arrayenumerateuniq arrayuniq
    arrayflattenedlength arrayrandomsample arrayautocorrelation arraynormalizedgini arraysimilarity array map
    mapadd mapsubtract mapconcat mapcontains mapcontainskey mapcontainsvalue mapcontainskeylike
    mapcontainsvaluelike mapextractkeylike mapextractvaluelike mapfromarrays mappopulateseries mapupdate
    """
)
"""Functions of arrays and maps whose first argument is a column, not a function to apply."""
