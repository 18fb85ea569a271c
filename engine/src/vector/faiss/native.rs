//! The library itself: everything that is unsafe about Faiss, behind calls that are not.
//!
//! - *Guarantees:* an index is shared by any number of searches and changed by nobody then; what Faiss throws is an error with its words;
//!   results are places below the number of rows, each at most once.
//! - *Non-guarantees:* Faiss trusts the bytes that it reads. Who calls [`Native::read`] knows that they are what Faiss wrote; a file of
//!   somebody else is as trusted as a program of theirs.
//! - *Why not only the crate `faiss`:* its search takes the index as `&mut`, its parameters never free the selector they were given, and it
//!   reads and writes files only. What it does well (making, training, filling and freeing an index) is used of it.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use faiss::Index;
use faiss::index::{FromInnerPtr, IndexImpl};
use faiss_sys as sys;

/// What Faiss said was wrong.
pub type Result<T> = std::result::Result<T, String>;

/// How vectors of an index are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Inner product.
    Dot,
    /// Square of the Euclidean distance.
    Euclid,
    /// Anything else that Faiss knows.
    Other,
}

/// An index of Faiss.
pub struct Native {
    index: IndexImpl,
    /// Lists, if it consists of some that can be named.
    lists: Option<usize>,
}

/// Ids of an index that has them.
pub enum Ids {
    /// The numbers of its rows.
    Places,
    /// What somebody gave them, in the order of the rows.
    Given(Vec<i64>),
}

impl Native {
    /// An empty index.
    pub fn make(dim: usize, factory: &str, measure: Measure) -> Result<Self> {
        let metric = match measure {
            Measure::Dot => faiss::MetricType::InnerProduct,
            Measure::Euclid => faiss::MetricType::L2,
            Measure::Other => return Err("no index by another measure is made".to_owned()),
        };
        let dim = u32::try_from(dim).map_err(|_| "too many dimensions".to_owned())?;
        let index = faiss::index_factory(dim, factory, metric).map_err(words)?;
        Ok(Self::of(index))
    }

    fn of(index: IndexImpl) -> Self {
        let lists = Self::lists_of(&index);
        Self { index, lists }
    }

    #[expect(unsafe_code, reason = "which class an index is says only the C interface")]
    fn lists_of(index: &IndexImpl) -> Option<usize> {
        let this = index.inner_ptr();
        // SAFETY: the pointer is that of a living index. Casts look at its class and give it back, or null; the inner index of a
        // transform lives as long as it does, and `nlist` is a number of it.
        unsafe {
            let transform = sys::faiss_IndexPreTransform_cast(this);
            let inner = match transform.is_null() {
                true => this,
                false => sys::faiss_IndexPreTransform_index(transform),
            };
            let lists = sys::faiss_IndexIVF_cast(inner);
            (!lists.is_null()).then(|| sys::faiss_IndexIVF_nlist(lists))
        }
    }

    /// Lists, if a search can be told how many of them to look into.
    pub fn lists(&self) -> Option<usize> {
        self.lists
    }

    /// Rows.
    pub fn len(&self) -> usize {
        usize::try_from(self.index.ntotal()).unwrap_or(usize::MAX)
    }

    /// There are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Dimensions.
    pub fn dim(&self) -> usize {
        self.index.d() as usize
    }

    /// How it compares.
    #[expect(unsafe_code, reason = "the crate panics at a measure that it does not know")]
    pub fn measure(&self) -> Measure {
        // SAFETY: the pointer is that of a living index, of which a number is read.
        match unsafe { sys::faiss_Index_metric_type(self.index.inner_ptr()) } {
            sys::FaissMetricType_METRIC_INNER_PRODUCT => Measure::Dot,
            sys::FaissMetricType_METRIC_L2 => Measure::Euclid,
            _ => Measure::Other,
        }
    }

    /// Whether rows can be added.
    pub fn is_trained(&self) -> bool {
        self.index.is_trained()
    }

    /// Learns from rows, one after the other.
    pub fn train(&mut self, rows: &[f32]) -> Result<()> {
        self.check_rows(rows)?;
        self.index.train(rows).map_err(words)
    }

    /// Adds rows, one after the other.
    pub fn add(&mut self, rows: &[f32]) -> Result<()> {
        self.check_rows(rows)?;
        self.index.add(rows).map_err(words)
    }

    /// The same under ids, which only some indexes take.
    pub fn add_with_ids(&mut self, rows: &[f32], ids: &[i64]) -> Result<()> {
        self.check_rows(rows)?;
        if ids.len() * self.dim() != rows.len() || ids.iter().any(|id| *id < 0) {
            return Err("an id for each row, none below 0".to_owned());
        }
        let ids: Vec<faiss::Idx> = ids.iter().map(|id| faiss::Idx::from(*id)).collect();
        self.index.add_with_ids(rows, &ids).map_err(words)
    }

    fn check_rows(&self, rows: &[f32]) -> Result<()> {
        match rows.len().is_multiple_of(self.dim().max(1)) {
            true => Ok(()),
            false => Err(format!("{} numbers are no rows of {}", rows.len(), self.dim())),
        }
    }

    /// The places of at most `k` rows, nearest first as far as Faiss knows. Of lists as many are looked into as `nprobe` says. `only` is a
    /// bitmap of the places that are wanted.
    #[expect(unsafe_code, reason = "a search of a shared index, with parameters")]
    pub fn search(&self, query: &[f32], k: usize, nprobe: Option<usize>, only: Option<&[u8]>) -> Result<Vec<usize>> {
        if query.len() != self.dim() {
            return Err(format!("a query of {} numbers, not {}", query.len(), self.dim()));
        }
        let k = k.min(self.len());
        if k == 0 {
            return Ok(Vec::new());
        }
        let parameters = Parameters::of(self.lists.and(nprobe), only)?;
        let mut distances = vec![0f32; k];
        let mut labels = vec![-1i64; k];
        // SAFETY: the query has the numbers of one row, and the results have place for `k`. The parameters, and the bitmap they point
        // to, live until the end of this function. A search does not change an index that is in memory: Faiss documents that any
        // number of threads may search one at once. (It counts in global statistics without a lock, which nobody reads.)
        let code = unsafe {
            sys::faiss_Index_search_with_params(
                self.index.inner_ptr(),
                1,
                query.as_ptr(),
                k as i64,
                parameters.parameters,
                distances.as_mut_ptr(),
                labels.as_mut_ptr(),
            )
        };
        check(code)?;
        let rows = self.len();
        // Faiss fills up with -1.
        let place = |label: i64| usize::try_from(label).ok().filter(|place| *place < rows);
        Ok(labels.into_iter().filter_map(place).collect())
    }

    /// Writes it as Faiss does, a piece at a time. `put` says whether to go on.
    #[expect(unsafe_code, reason = "Faiss calls back to write")]
    pub fn write(&self, put: &mut dyn FnMut(&[u8]) -> bool) -> Result<()> {
        unsafe extern "C" fn piece(bytes: *const c_void, size: usize, items: usize) -> usize {
            let len = size.saturating_mul(items);
            if bytes.is_null() || len == 0 {
                return items;
            }
            // SAFETY: Faiss hands over `items` of `size` bytes, which live until this returns.
            let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
            SINK.with(|sink| {
                let Some(put) = sink.take() else { return 0 };
                // SAFETY: the pointer was made of a reference that lives while `write` does, which is in this call. It was taken out
                // of its place, so there is no second one.
                let goes_on = unsafe { (*put)(bytes) };
                sink.set(Some(put));
                if goes_on { items } else { 0 }
            })
        }
        let mut writer = ptr::null_mut();
        // SAFETY: the place for the result is one.
        check(unsafe { sys::faiss_CustomIOWriter_new(&mut writer, Some(piece)) })?;
        // SAFETY: only the lifetime of what the pointer points to is forgotten; it is taken away below, before that ends.
        let put: *mut (dyn FnMut(&[u8]) -> bool + 'static) = unsafe { std::mem::transmute(ptr::from_mut(put)) };
        SINK.set(Some(put));
        // SAFETY: index and writer are alive. Faiss writes in the thread that asks it to, so `piece` finds the sink.
        let code = unsafe { sys::faiss_write_index_custom(self.index.inner_ptr(), writer.cast(), 0) };
        SINK.set(None);
        // Asked for before anything else is done with the library.
        let written = check(code);
        // SAFETY: it was made above and is used no more.
        unsafe { sys::faiss_CustomIOWriter_free(writer) };
        written
    }

    /// Reads what [`Self::write`] wrote.
    #[expect(unsafe_code, reason = "Faiss calls back to read")]
    pub fn read(bytes: &[u8]) -> Result<Self> {
        unsafe extern "C" fn piece(to: *mut c_void, size: usize, items: usize) -> usize {
            let (from, left) = SOURCE.get();
            let whole = items.min(left.checked_div(size).unwrap_or(0));
            let len = whole * size;
            if to.is_null() || len == 0 {
                return whole;
            }
            // SAFETY: Faiss has place for `items` of `size` bytes, and at most so many that are left of the source are given.
            // Both live until this returns, and are not the same memory: one is Faiss' own.
            unsafe { ptr::copy_nonoverlapping(from, to.cast::<u8>(), len) };
            // SAFETY: `len` is at most `left`, so it is at most one beyond the end.
            SOURCE.set((unsafe { from.add(len) }, left - len));
            whole
        }
        let mut reader = ptr::null_mut();
        // SAFETY: the place for the result is one.
        check(unsafe { sys::faiss_CustomIOReader_new(&mut reader, Some(piece)) })?;
        SOURCE.set((bytes.as_ptr(), bytes.len()));
        let mut index = ptr::null_mut();
        // SAFETY: the reader is alive. Faiss reads in the thread that asks it to, so `piece` finds the source.
        let code = unsafe { sys::faiss_read_index_custom(reader.cast(), 0, &mut index) };
        let (_, left) = SOURCE.replace((ptr::null(), 0));
        let read = check(code);
        // SAFETY: it was made above and is used no more.
        unsafe { sys::faiss_CustomIOReader_free(reader) };
        read?;
        // SAFETY: Faiss said that it made an index, and nobody else has it.
        let native = Self::of(unsafe { IndexImpl::from_inner_ptr(index) });
        match left {
            0 => Ok(native),
            left => Err(format!("{left} bytes behind the index")),
        }
    }

    /// Reads a file that Faiss wrote.
    pub fn read_file(path: &str) -> Result<Self> {
        Ok(Self::of(faiss::read_index(path).map_err(words)?))
    }

    /// The ids of its rows, and an index that knows rows by their places.
    #[expect(unsafe_code, reason = "ids are reached by the C interface only")]
    pub fn ids(&self) -> Ids {
        let this = self.index.inner_ptr();
        // SAFETY: the pointer is that of a living index, and casts look at its class. `IndexIDMap2` is an `IndexIDMap`. The numbers that
        // are pointed to are copied before anything could change the index.
        unsafe {
            let map = sys::faiss_IndexIDMap_cast(this);
            if map.is_null() {
                return Ids::Places;
            }
            let (mut ids, mut len) = (ptr::null_mut(), 0);
            sys::faiss_IndexIDMap_id_map(map, &mut ids, &mut len);
            match ids.is_null() {
                true => Ids::Given(Vec::new()),
                false => Ids::Given(std::slice::from_raw_parts(ids, len).to_vec()),
            }
        }
    }

    /// Whether it remembers rows as they were added; none if it does not say.
    #[expect(unsafe_code, reason = "a call of the C interface that the crate does not have")]
    pub fn keeps_whole(&self) -> Option<bool> {
        let (inner, _) = self.inner();
        let mut bytes = 0;
        // SAFETY: the pointer is that of a living index, and there is place for a number.
        let code = unsafe { sys::faiss_Index_sa_code_size(inner, &mut bytes) };
        (code == 0).then_some(bytes >= self.dim() * 4)
    }

    /// Has the index remember where it put each row, which lists need to give rows back ([`Self::rows`]).
    #[expect(unsafe_code, reason = "a call of the C interface that the crate does not have")]
    pub fn remember_places(&mut self) -> Result<()> {
        let (inner, _) = self.inner();
        // SAFETY: the pointers are those of a living index that nobody else has; casts look at its class.
        unsafe {
            let transform = sys::faiss_IndexPreTransform_cast(inner);
            let inner = match transform.is_null() {
                true => inner,
                false => sys::faiss_IndexPreTransform_index(transform),
            };
            let lists = sys::faiss_IndexIVF_cast(inner);
            match lists.is_null() {
                true => Ok(()),
                false => check(sys::faiss_IndexIVF_make_direct_map(lists, 1)),
            }
        }
    }

    /// The index without its ids, and whether it had any.
    #[expect(unsafe_code, reason = "ids are reached by the C interface only")]
    fn inner(&self) -> (*mut sys::FaissIndex, bool) {
        let this = self.index.inner_ptr();
        // SAFETY: as in `ids`; the index below lives as long as the one above.
        unsafe {
            let map = sys::faiss_IndexIDMap_cast(this);
            match map.is_null() {
                true => (this, false),
                false => (sys::faiss_IndexIDMap_sub_index(map), true),
            }
        }
    }

    /// Rows by their places, as near to what was added as the index remembers them.
    #[expect(unsafe_code, reason = "of an index with ids that of places is asked")]
    pub fn rows(&self, first: usize, count: usize) -> Result<Vec<f32>> {
        if first.checked_add(count).is_none_or(|end| end > self.len()) {
            return Err(format!("rows from {first} on of {}", self.len()));
        }
        let mut rows = vec![0f32; count * self.dim()];
        let (inner, _) = self.inner();
        // SAFETY: the pointer is that of a living index; there is place for the rows, which exist.
        check(unsafe { sys::faiss_Index_reconstruct_n(inner, first as i64, count as i64, rows.as_mut_ptr()) })?;
        Ok(rows)
    }
}

type Put = *mut (dyn FnMut(&[u8]) -> bool + 'static);

thread_local! {
    /// Whom a piece is handed to: the interface has no place for a pointer of ours.
    static SINK: Cell<Option<Put>> = const { Cell::new(None) };
    /// What is left to be read.
    static SOURCE: Cell<(*const u8, usize)> = const { Cell::new((ptr::null(), 0)) };
}

/// Parameters of a search, with what they point to.
struct Parameters<'a> {
    parameters: *mut sys::FaissSearchParameters,
    selector: *mut sys::FaissIDSelector,
    _only: Option<&'a [u8]>,
}

impl<'a> Parameters<'a> {
    #[expect(unsafe_code, reason = "the crate's parameters never free a selector")]
    fn of(nprobe: Option<usize>, only: Option<&'a [u8]>) -> Result<Self> {
        let mut made = Self {
            parameters: ptr::null_mut(),
            selector: ptr::null_mut(),
            _only: only,
        };
        if let Some(only) = only {
            let mut selector = ptr::null_mut();
            // SAFETY: the bitmap has so many bytes, and outlives what is made.
            check(unsafe { sys::faiss_IDSelectorBitmap_new(&mut selector, only.len(), only.as_ptr()) })?;
            made.selector = selector.cast();
        }
        match nprobe {
            Some(nprobe) => {
                let mut parameters = ptr::null_mut();
                // SAFETY: the selector is one, or null for none; it outlives the parameters.
                check(unsafe { sys::faiss_SearchParametersIVF_new_with(&mut parameters, made.selector, nprobe, 0) })?;
                made.parameters = parameters.cast();
            }
            None if only.is_some() => {
                // SAFETY: as above.
                check(unsafe { sys::faiss_SearchParameters_new(&mut made.parameters, made.selector) })?;
            }
            None => {}
        }
        Ok(made)
    }
}

impl Drop for Parameters<'_> {
    #[expect(unsafe_code, reason = "what the library made it frees")]
    fn drop(&mut self) {
        // SAFETY: each was made by the library, or is null, which it takes; both have a destructor that knows their class.
        unsafe {
            sys::faiss_SearchParameters_free(self.parameters);
            sys::faiss_IDSelector_free(self.selector);
        }
    }
}

/// Has parallel work that this thread asks Faiss for use at most so many threads.
#[expect(unsafe_code, reason = "OpenMP is asked by its own function")]
pub fn use_threads(threads: usize) {
    unsafe extern "C" {
        fn omp_set_num_threads(threads: c_int);
    }
    // SAFETY: the function is OpenMP's, which Faiss is linked with. It sets a number of the calling thread.
    unsafe { omp_set_num_threads(c_int::try_from(threads.max(1)).unwrap_or(c_int::MAX)) };
}

fn words(error: faiss::error::Error) -> String {
    brief(&error.to_string())
}

/// An error if the library says so.
#[expect(unsafe_code, reason = "the words are the library's")]
fn check(code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: after an error there is a text, or null; it is that of this thread and lives until its next error.
    let text = unsafe {
        let text = sys::faiss_get_last_error();
        match text.is_null() {
            true => return Err(format!("error {code}")),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        }
    };
    Err(brief(&text))
}

/// Without where in its source something was wrong: "Error in X at file:line: Error: 'condition' failed: words".
fn brief(text: &str) -> String {
    let said = text.rsplit("failed: ").next().unwrap_or(text);
    let said = match said.rsplit_once(".cpp:") {
        Some((_, rest)) => rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':' || c == ' '),
        None => said,
    };
    said.trim().chars().take(300).collect()
}
