//! How many seats a request takes: as many as what is read for it at once is large (`apiserver/pkg/util/flowcontrol/request`). Pure.

use store::Size;

use crate::request::Query;

/// `bytesPerSeat`
const BYTES_A_SEAT: u64 = 100_000;
/// Lists are sent as they are read: there is never more of one at once (`cacheWithStreamingMaxMemoryUsage`).
const MOST_AT_ONCE: u64 = 1_000_000;

/// Of a list or a watch of a resource; `is_one` says that it is about one object by name.
pub(crate) fn of_list(verb: &str, query: &Query, is_one: bool, size: Size) -> usize {
    let begins_anew = matches!(query.get("resourceVersion"), "" | "0") || query.flag("sendInitialEvents");
    if verb == "watch" && !begins_anew {
        return 1;
    }
    let objects = size.objects as u64;
    let limit = query.integer("limit").ok().flatten().and_then(|limit| u64::try_from(limit).ok());
    let read = match limit.filter(|limit| *limit > 0) {
        _ if is_one => 1,
        Some(limit) => objects.min(limit),
        None => objects,
    };
    let average = (size.bytes as u64).checked_div(objects).unwrap_or(0);
    let at_once = read.saturating_mul(average).min(MOST_AT_ONCE);
    usize::try_from(at_once.div_ceil(BYTES_A_SEAT)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use store::Size;

    use super::of_list;
    use crate::request::Query;

    #[test]
    fn the_width_is_what_is_read_at_once() {
        let size = Size { objects: 1_000, bytes: 600_000 };
        let table = [
            ("list", "", false, 6),
            ("list", "limit=500", false, 3),
            ("list", "limit=0&resourceVersion=0", false, 6),
            ("list", "limit=1", false, 1),
            ("list", "", true, 1),
            ("watch", "", false, 6),
            ("watch", "resourceVersion=0", false, 6),
            ("watch", "resourceVersion=7", false, 1),
            ("watch", "resourceVersion=7&sendInitialEvents=true", false, 6),
        ];
        for (verb, query, is_one, width) in table {
            assert_eq!(of_list(verb, &Query::parse(Some(query)), is_one, size), width, "{verb} {query}");
        }
        let query = Query::parse(None);
        assert_eq!(of_list("list", &query, false, Size { objects: 100_000, bytes: 1 << 30 }), 10);
        assert_eq!(of_list("list", &query, false, Size::default()), 1);
    }
}
