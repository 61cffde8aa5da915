"""Names that the trainings and the tests of what a browser shows of them share."""

EVIL = "<script>document.title = 'owned'</script>"
RUNS = ("first", "second")
