//! Pages of a list: limits, and cursors that know which list, which order and which position they stand for.
//!
//! A position is the key of a row in the list's own index, and a page starts behind it; so what is deleted or added
//! meanwhile neither repeats nor skips anything else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::catalog::KEY_BYTES_MAX;
use store::{Direction, KeyRange};

use crate::error::{ApiError, Result};
use crate::query::{Param, Query};

const CURSOR_PREFIX: &str = "page_";

/// How many rows a page has.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub default: usize,
    pub max: usize,
}

impl Limits {
    pub fn param(self) -> Param {
        Param::number("limit", 1..=self.max as u64)
    }
}

/// The cursor.
pub fn param() -> Param {
    Param::text("page")
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Asc,
    Desc,
}

impl Order {
    pub fn param() -> Param {
        Param::choice("order", &["asc", "desc"])
    }

    /// The parameter `order`, else the default.
    pub fn of(query: &Query, default: Order) -> Result<Order> {
        match query.text("order")? {
            None => Ok(default),
            Some("asc") => Ok(Order::Asc),
            Some("desc") => Ok(Order::Desc),
            Some(_) => Err(ApiError::field("order", "must be asc or desc")),
        }
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Cursor {
    /// Which list, with whatever of the path belongs to it.
    #[serde(rename = "l")]
    list: String,
    #[serde(rename = "o")]
    order: Order,
    /// True where the page lies before the position.
    #[serde(rename = "b", default)]
    back: bool,
    #[serde(rename = "p")]
    position: String,
}

/// Which page of which list a request asks for.
#[derive(Clone, Debug)]
pub struct PageRequest {
    list: String,
    order: Order,
    pub limit: usize,
    cursor: Option<Cursor>,
}

impl PageRequest {
    /// Reads `limit` and `page`. `list` is the list's name with whatever of the path belongs to it; `order` is the
    /// order asked for, and a cursor of another order or list is a 400.
    pub fn of(query: &Query, list: impl Into<String>, order: Order, limits: Limits) -> Result<Self> {
        let expected = format!("a number from 1 to {}", limits.max);
        let limit = query.parsed("limit", &expected)?.unwrap_or(limits.default);
        if limit == 0 || limit > limits.max {
            return Err(ApiError::field("limit", format!("must be {expected}")));
        }
        let list = list.into();
        let cursor = query.text("page")?.map(Cursor::decode).transpose()?;
        if let Some(cursor) = &cursor {
            if cursor.list != list {
                return Err(ApiError::field("page", "is a cursor of another list"));
            }
            if cursor.order != order {
                return Err(ApiError::field("page", "is a cursor of the other order"));
            }
        }
        Ok(Self { list, order, limit, cursor })
    }

    /// The position behind which the page starts, if it is not the first.
    pub fn position(&self) -> Option<&str> {
        self.cursor.as_ref().map(|cursor| cursor.position.as_str())
    }

    /// In which direction to read rows, and from which part of the range. A cursor whose position the range has left
    /// is a 400.
    pub fn window(&self, range: KeyRange) -> Result<(KeyRange, Direction)> {
        let forward = match self.order {
            Order::Asc => Direction::Forward,
            Order::Desc => Direction::Reverse,
        };
        let Some(cursor) = &self.cursor else { return Ok((range, forward)) };
        if !range.contains(cursor.position.as_bytes()) {
            return Err(ApiError::field("page", "its position is outside of the filters"));
        }
        let direction = match (cursor.back, forward) {
            (false, direction) => direction,
            (true, Direction::Forward) => Direction::Reverse,
            (true, Direction::Reverse) => Direction::Forward,
        };
        Ok((range.after(cursor.position.as_str(), direction), direction))
    }

    /// Makes the page of the rows that were read in the direction of the window, up to one more than `limit`.
    /// `position` gives a row's key in the index.
    pub fn page<T>(&self, mut rows: Vec<T>, position: impl Fn(&T) -> String) -> Page<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let back = self.cursor.as_ref().is_some_and(|cursor| cursor.back);
        if back {
            rows.reverse();
        }
        let (has_next, has_prev) = if back { (true, more) } else { (more, self.cursor.is_some()) };
        let at = |row: &T, back: bool| {
            Cursor { list: self.list.clone(), order: self.order, back, position: position(row) }.encode()
        };
        let next_page = rows.last().filter(|_| has_next).map(|row| at(row, false));
        let prev_page = rows.first().filter(|_| has_prev).map(|row| at(row, true));
        Page { data: rows, next_page, prev_page }
    }
}

impl Cursor {
    fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("a cursor is a struct of plain values");
        format!("{CURSOR_PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    fn decode(text: &str) -> Result<Self> {
        let bytes = text.strip_prefix(CURSOR_PREFIX).and_then(|coded| URL_SAFE_NO_PAD.decode(coded).ok());
        let cursor = bytes.and_then(|bytes| serde_json::from_slice::<Cursor>(&bytes).ok());
        let cursor = cursor.filter(|cursor| cursor.position.len() <= KEY_BYTES_MAX);
        cursor.ok_or_else(|| ApiError::field("page", "is not a cursor of this server"))
    }
}

/// One page as clients see it.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub struct Page<T> {
    pub data: Vec<T>,
    pub next_page: Option<String>,
    /// Only the list of sessions shows it; see [`Page::with_prev`].
    #[serde(skip)]
    pub prev_page: Option<String>,
}

impl<T> Page<T> {
    /// Everything there is, without a cursor.
    pub fn whole(data: Vec<T>) -> Self {
        Self { data, next_page: None, prev_page: None }
    }

    pub fn map<U>(self, view: impl FnMut(T) -> U) -> Page<U> {
        let data = self.data.into_iter().map(view).collect();
        Page { data, next_page: self.next_page, prev_page: self.prev_page }
    }

    /// The page with `prev_page`, null on the first one.
    pub fn with_prev(self) -> PageWithPrev<T> {
        PageWithPrev { data: self.data, next_page: self.next_page, prev_page: self.prev_page }
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[schemars(rename = "BothWaysPageOf{T}")]
pub struct PageWithPrev<T> {
    pub data: Vec<T>,
    pub next_page: Option<String>,
    pub prev_page: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { default: 2, max: 5 };

    fn request(query: &str, list: &str, order: Order) -> Result<PageRequest> {
        PageRequest::of(&Query::parse(query), list, order, LIMITS)
    }

    /// Reads a page of the keys "a" to "g" as a handler would.
    fn read(query: &str, order: Order) -> Page<String> {
        let request = request(query, "letters", order).unwrap();
        let (range, direction) = request.window(KeyRange::all()).unwrap();
        let mut keys: Vec<String> = ["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned).into();
        keys.retain(|key| range.contains(key.as_bytes()));
        if direction == Direction::Reverse {
            keys.reverse();
        }
        keys.truncate(request.limit + 1);
        request.page(keys, Clone::clone)
    }

    #[test]
    fn a_walk_there_and_back_visits_the_same_rows() {
        for (order, expected) in [(Order::Asc, ["ab", "cd", "ef", "g"]), (Order::Desc, ["gf", "ed", "cb", "a"])] {
            let (mut seen, mut query) = (Vec::new(), String::new());
            let last = loop {
                let page = read(&query, order);
                seen.push(page.data.concat());
                assert_eq!(page.prev_page.is_none(), seen.len() == 1);
                match &page.next_page {
                    Some(next) => query = format!("page={next}"),
                    None => break page,
                }
            };
            assert_eq!(seen, expected);
            let (mut back, mut page) = (vec![last.data.concat()], last);
            while let Some(prev) = &page.prev_page {
                page = read(&format!("page={prev}"), order);
                assert!(page.next_page.is_some());
                back.push(page.data.concat());
            }
            back.reverse();
            assert_eq!(back, seen);
        }
    }

    #[test]
    fn bad_cursors_and_limits_are_refused() {
        let cursor = read("", Order::Asc).next_page.unwrap();
        let good = format!("page={cursor}&limit=5");
        assert!(request(&good, "letters", Order::Asc).is_ok());
        assert!(request(&good, "letters", Order::Desc).is_err());
        assert!(request(&good, "numbers", Order::Asc).is_err());
        for query in
            ["page=page_", "page=x", "page=page_%21", "page=page_e30", "limit=0", "limit=6", "limit=-1", "limit=x"]
        {
            assert!(request(query, "letters", Order::Asc).is_err(), "{query}");
        }
        let position = "x".repeat(KEY_BYTES_MAX + 1);
        let endless = Cursor { list: "letters".to_owned(), order: Order::Asc, back: false, position }.encode();
        assert!(request(&format!("page={endless}"), "letters", Order::Asc).is_err());
        let narrowed = request(&good, "letters", Order::Asc).unwrap().window(KeyRange::prefix("x"));
        assert!(narrowed.is_err());
    }
}
